"""Parameter groups and optimizers of the classification recipes."""

from typing import Any

from mmengine.model import is_model_wrapper
from mmengine.optim import DefaultOptimWrapperConstructor
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS, OPTIM_WRAPPERS, OPTIMIZERS
from timm.optim import AdamP, param_groups_weight_decay
from torch import nn

OPTIMIZERS.register_module(module=AdamP)


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class TimmGroupsConstructor(DefaultOptimWrapperConstructor):
    """Constructor of timm's parameter groups, as in DeiT: no decay of biases, norms and no_weight_decay() names."""

    def __call__(self, model: nn.Module) -> Any:
        classifier: Any = model.module if is_model_wrapper(model) else model
        network = classifier.network
        still = network.no_weight_decay() if hasattr(network, 'no_weight_decay') else ()
        groups = param_groups_weight_decay(network, self.base_wd or 0.0, no_weight_decay_list=still)
        optimizer = OPTIMIZERS.build({**self.optimizer_cfg, 'params': groups})
        return OPTIM_WRAPPERS.build(self.optim_wrapper_cfg, default_args={'optimizer': optimizer})
