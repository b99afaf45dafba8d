"""Optional packages: which extra of `pip install 'pit_downstream[EXTRA]'` installs which modules."""

import importlib.util

from pit_downstream.utils.errors import InputError

EXTRAS = {
    'det': ('mmengine', 'mmcv', 'mmdet', 'pycocotools'),
    'train': ('mmengine',),
    'report': ('matplotlib',),
    'hf': ('transformers',),
    'export': ('onnx', 'onnxscript'),
}


class MissingExtraError(InputError, ImportError):
    """Modules of an extra are not installed."""


def install_command(extra: str) -> str:
    return f"pip install 'pit_downstream[{extra}]'"


def require_extra(extra: str) -> None:
    """Raise MissingExtraError with the pip command if a module of `extra`, a key of EXTRAS, is not installed.

    No module is imported, so a broken installation passes.
    """
    missing = [name for name in EXTRAS[extra] if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingExtraError(f'Modules of the extra {extra!r} are not installed: {", ".join(missing)}. '
                                f'Run {install_command(extra)}.')
