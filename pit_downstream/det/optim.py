"""Parameter groups that combine learning-rate and weight-decay rules."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, cast

from mmdet.registry import OPTIM_WRAPPER_CONSTRUCTORS
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.optim import DefaultOptimWrapperConstructor
from mmengine.registry import OPTIM_WRAPPERS, OPTIMIZERS
from torch import nn

from pit_downstream.utils.errors import InputError

NO_DECAY = ('pos_embed', 'cls_token')
BACKBONE = 'backbone.'  # prefix of its parameter names in every detector of mmdet


def build_parameter_groups(model: nn.Module, lr: float, weight_decay: float, *,
                           lr_mult: Mapping[str, float] | None = None, no_decay: Sequence[str] = NO_DECAY,
                           layer_decay: float = 1.0) -> list[dict]:
    """Group the trainable parameters of `model` by (lr, weight_decay), highest lr first.

    lr_mult: part of a name -> factor; every part that a parameter's name contains applies.
    layer_decay: additional factor in (0, 1] for each backbone layer between a parameter and the neck (`find_layer`).
    Parameters with fewer than two axes (norms, biases) and those whose name contains a `no_decay` part have no decay.
    Raises InputError for a layer_decay outside (0, 1], or below 1 with a backbone without get_layer_depth.
    """
    _require_layers(model, layer_decay)
    groups = defaultdict(list)
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        factor = 1.0
        for part, multiplier in (lr_mult or {}).items():
            factor *= multiplier if part in name else 1.0
        layer = find_layer(model, name) if layer_decay < 1 else None
        if layer is not None:
            depth, count = layer
            factor *= layer_decay ** (count - 1 - depth)
        decays = parameter.ndim > 1 and not any(part in name for part in no_decay)
        groups[lr * factor, weight_decay if decays else 0.0].append(parameter)
    return [{'params': groups[key], 'lr': key[0], 'weight_decay': key[1]} for key in sorted(groups, reverse=True)]


def find_layer(model: nn.Module, name: str) -> tuple[int, int] | None:
    """Return (layer, number of layers) of a parameter of `model.backbone` from its `get_layer_depth`; None elsewhere.

    As in mmpretrain, 0 is the stem and the last layer is everything after the blocks.
    """
    backbone: Any = getattr(model, 'backbone', None)
    if not name.startswith(BACKBONE) or not hasattr(backbone, 'get_layer_depth'):
        return None
    return backbone.get_layer_depth(name, BACKBONE)


def format_groups(model: nn.Module, groups: Sequence[Mapping]) -> str:
    """Format a line per group: rate, weight decay, numbers of tensors and of values, and its parts of `model`."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    lines = ['        lr    decay  tensors      values  where']
    for group in groups:
        found = [names[id(parameter)] for parameter in group['params']]
        values = sum(parameter.numel() for parameter in group['params'])
        lines.append(f'{group["lr"]:10.3e}  {group["weight_decay"]:7.4g}  {len(found):7}  {values:10,}  '
                     f'{", ".join(dict.fromkeys(_place(model, name) for name in found))}')
    return '\n'.join(lines)


def _place(model: nn.Module, name: str) -> str:
    layer = find_layer(model, name)
    return f'backbone layer {layer[0]}' if layer else name.partition('.')[0]


def _require_layers(model: nn.Module, layer_decay: float) -> None:
    if not 0 < layer_decay <= 1:
        raise InputError(f'layer_decay is a factor in (0, 1], got {layer_decay}')
    backbone = getattr(model, 'backbone', None)
    if layer_decay < 1 and not hasattr(backbone, 'get_layer_depth'):
        raise InputError('layer_decay needs a backbone with get_layer_depth(name, prefix), got '
                         f'{type(backbone).__name__}; take PiT or DeepViT, or leave it out')


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class PitOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """Optimizer constructor that combines learning-rate and weight-decay rules.

    `optim_wrapper=dict(constructor='PitOptimWrapperConstructor', paramwise_cfg=dict(lr_mult={'backbone': 0.1}))`.
    mmengine's constructor applies only the longest matching key of `custom_keys` and no other rule. A lower rate for
    the backbone would therefore restore weight decay on its norms.
    `paramwise_cfg` holds the optional arguments of `build_parameter_groups`; other keys raise TypeError. The groups are
    logged as a table.
    """

    def __call__(self, model: nn.Module):
        model = cast(nn.Module, model.module) if is_model_wrapper(model) else model
        groups = build_parameter_groups(model, self.base_lr, self.base_wd or 0.0, **self.paramwise_cfg)
        print_log(f'parameter groups:\n{format_groups(model, groups)}', logger='current')
        optimizer = OPTIMIZERS.build({**self.optimizer_cfg, 'params': groups})
        return OPTIM_WRAPPERS.build(self.optim_wrapper_cfg, default_args={'optimizer': optimizer})
