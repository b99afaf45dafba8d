"""Parameter groups whose learning-rate rule and weight-decay rule compose."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from mmdet.registry import OPTIM_WRAPPER_CONSTRUCTORS
from mmengine.model import is_model_wrapper
from mmengine.optim import DefaultOptimWrapperConstructor
from mmengine.registry import OPTIM_WRAPPERS, OPTIMIZERS
from torch import nn

NO_DECAY = ('pos_embed', 'cls_token')


def parameter_groups(model: nn.Module, lr: float, weight_decay: float, *, lr_mult: Mapping[str, float] | None = None,
                     no_decay: Sequence[str] = NO_DECAY) -> list[dict]:
    """The trainable parameters of `model` by (lr, weight_decay), highest lr first.

    lr_mult: part of a name -> factor; every part that a parameter's name contains applies.
    Without decay: parameters with fewer than two axes (norms, biases) and those whose name contains a `no_decay` part.
    """
    groups = defaultdict(list)
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        factor = 1.0
        for part, multiplier in (lr_mult or {}).items():
            factor *= multiplier if part in name else 1.0
        decays = parameter.ndim > 1 and not any(part in name for part in no_decay)
        groups[lr * factor, weight_decay if decays else 0.0].append(parameter)
    return [{'params': groups[key], 'lr': key[0], 'weight_decay': key[1]} for key in sorted(groups, reverse=True)]


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class PitOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """`optim_wrapper=dict(constructor='PitOptimWrapperConstructor', paramwise_cfg=dict(lr_mult={'backbone': 0.1}))`.

    mmengine's own constructor applies only the longest matching key of `custom_keys` and then no other rule, so that
    slowing the backbone down would bring weight decay back onto its norms.
    `paramwise_cfg` holds the optional arguments of `parameter_groups`; anything else in it raises TypeError.
    """

    def __call__(self, model: nn.Module):
        model = model.module if is_model_wrapper(model) else model
        groups = parameter_groups(model, self.base_lr, self.base_wd or 0.0, **self.paramwise_cfg)
        optimizer = OPTIMIZERS.build({**self.optimizer_cfg, 'params': groups})
        return OPTIM_WRAPPERS.build(self.optim_wrapper_cfg, default_args={'optimizer': optimizer})
