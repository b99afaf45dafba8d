"""mmdet integration. Importing it makes `mmcv.ops` work, makes checkpoints load safely and registers our modules.

Configs name it: `custom_imports = dict(imports=['pit_downstream.det'], allow_failed_imports=False)`.
`python -m pit_downstream.check` reports the result.
"""
from pit_downstream.utils.extras import MissingExtraError, install_command, require_extra
from pit_downstream.utils.imports import pause_garbage_collection


def require_stack() -> None:
    """Raise MissingExtraError if mmengine, mmcv or mmdet is missing, or if mmdet rejects their versions."""
    require_extra('det')
    try:
        import mmdet  # noqa: F401  its own version checks are assertions
    except AssertionError as refusal:
        raise MissingExtraError(f'mmdet rejects an installed version: {refusal} Run {install_command("det")}, or '
                                'install custom builds of mmengine, mmcv and mmdet.') from refusal


def _register_all() -> None:
    require_stack()
    from pit_downstream.training import safe_loading as checkpoint
    from pit_downstream.det import mmcv_ops
    mmcv_ops.install()
    checkpoint.register()
    from pit_downstream.det import (  # noqa: F401  registers modules, most with mmdet, which now imports
        backbones,
        classes,
        finite,
        hooks,
        optim,
        precision,
        preprocess,
        transforms,
        visualization,
    )
    from pit_downstream.det import checkpoint_classes as checkpoints  # noqa: F401  registers modules, most with mmdet, which now imports
    from pit_downstream.det import data_checks as data  # noqa: F401  registers modules, most with mmdet, which now imports


with pause_garbage_collection():
    _register_all()
