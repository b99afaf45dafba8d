"""mmcv's compiled ops (`mmcv._ext`) from torch and torchvision, for an mmcv without them.

mmcv-lite contains the Python half of `mmcv.ops` but not the extension that it calls, so `import mmdet.models` fails.
`install()` registers `mmcv_ops.ext` as the extension. Its functions keep the extension's C signatures (positional
tensors, preallocated outputs written in place), hence more arguments than our style allows elsewhere.
"""
import importlib
import importlib.util
import logging
import sys
from typing import Any

logger = logging.getLogger(__name__)

EXTENSION = 'mmcv._ext'


def install() -> str:
    """Make `mmcv.ops` importable, before mmdet is imported. Repeated calls have no effect.

    Returns 'compiled' if mmcv has its compiled extension, which is left unchanged, else 'substituted'.
    An extension that exists but does not load is substituted too, and its error is logged as a warning.
    """
    present = sys.modules.get(EXTENSION) or _load_compiled()
    if present is not None:
        return 'substituted' if present.__name__ == f'{__name__}.ext' else 'compiled'

    from pit_downstream.det.mmcv_ops import ext
    sys.modules[EXTENSION] = ext
    mmcv: Any = importlib.import_module('mmcv')
    mmcv._ext = ext
    return 'substituted'


def _load_compiled():
    """Return mmcv's compiled extension, or None if it is missing or does not load."""
    if importlib.util.find_spec(EXTENSION) is None:
        return None
    try:
        return importlib.import_module(EXTENSION)
    except (ImportError, OSError) as error:  # undefined symbols, a missing libcudart: built for another torch
        logger.warning('mmcv has compiled ops but they do not load, so torch and torchvision replace them: %s', error)
        return None
