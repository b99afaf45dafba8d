"""mmengine hooks that configs name."""

from mmdet.registry import HOOKS
from mmengine.hooks import Hook

from ..backbones.weights import unwrap


@HOOKS.register_module()
class BackboneLoadFromHook(Hook):
    """Let `load_from` take the checkpoint of a classifier: its tensors become the detector's `backbone.*`.

    A detector's own checkpoint (names with `backbone.`) and a resumed run pass untouched.
    """

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        state = unwrap(checkpoint)
        if not any('backbone.' in name for name in state):
            checkpoint['state_dict'] = {f'backbone.{name}': value for name, value in state.items()}
