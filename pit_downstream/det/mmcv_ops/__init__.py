"""mmcv's compiled ops (`mmcv._ext`) from torch and torchvision, for an mmcv that comes without them.

mmcv-lite ships the Python half of `mmcv.ops` but not the extension it calls, so `import mmdet.models` fails.
`install()` puts `mmcv_ops.ext` in the extension's place. The functions there keep the extension's C signatures
(positional tensors, preallocated outputs written in place), hence more arguments than our style allows elsewhere.
"""
import importlib
import importlib.util
import logging
import sys

logger = logging.getLogger(__name__)

EXTENSION = 'mmcv._ext'


def install() -> str:
    """Make `mmcv.ops` importable; call it before anything imports mmdet. Calling it again changes nothing.

    Returns 'compiled' if mmcv has its own extension, which is then left alone, else 'substituted'.
    An extension that exists but does not load is substituted too, and its error is logged as a warning.
    Raises ImportError if mmcv itself is absent.
    """
    if importlib.util.find_spec('mmcv') is None:
        raise ImportError('mmdet needs mmcv, which is not installed; run `pip install mmcv-lite==2.1.0`, '
                          'or install the compiled mmcv')
    present = sys.modules.get(EXTENSION) or _load_compiled()
    if present is not None:
        return 'substituted' if present.__name__ == f'{__name__}.ext' else 'compiled'

    from pit_downstream.det.mmcv_ops import ext
    sys.modules[EXTENSION] = ext
    importlib.import_module('mmcv')._ext = ext
    return 'substituted'


def _load_compiled():
    """mmcv's own extension, or None where it is missing or does not load."""
    if importlib.util.find_spec(EXTENSION) is None:
        return None
    try:
        return importlib.import_module(EXTENSION)
    except (ImportError, OSError) as error:  # undefined symbols, a missing libcudart: built for another torch
        logger.warning('mmcv has compiled ops but they do not load, so torch and torchvision replace them: %s', error)
        return None
