"""Libraries that tell their progress, silenced."""

import contextlib
import io
import logging
from collections.abc import Iterator

from mmengine.logging import MMLogger


@contextlib.contextmanager
def silence_output() -> Iterator[None]:
    """Meanwhile throw away what is printed (pycocotools: a dozen lines for every evaluation) and what mmengine's logger
    says below a warning (a line for each parameter of a new model)."""
    logger = MMLogger.get_current_instance()
    before = logger.level
    logger.setLevel(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(before)
