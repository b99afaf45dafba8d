"""Suppression of library output."""

import contextlib
import io
import logging
from collections.abc import Iterator

from mmengine.logging import MMLogger


@contextlib.contextmanager
def suppress_output() -> Iterator[None]:
    """Discard printed output and messages of mmengine's logger below a warning.

    pycocotools prints a dozen lines for every evaluation, mmengine logs a line for each parameter of a new model.
    """
    logger = MMLogger.get_current_instance()
    before = logger.level
    logger.setLevel(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(before)
