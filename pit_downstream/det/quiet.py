"""Libraries that print their progress, silenced."""

import contextlib
import io
from collections.abc import Iterator


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """Throw away what is printed meanwhile; pycocotools prints a dozen lines for every evaluation."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield
