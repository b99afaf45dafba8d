"""bfloat16 for training, validation and testing of detectors, on a GPU and on a CPU."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from mmdet.registry import HOOKS
from mmdet.structures import DetDataSample
from mmengine.config import Config, ConfigDict
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import Tensor, nn


@HOOKS.register_module()
class Bf16Hook(Hook):
    """Hook that runs every forward pass of the detector under bfloat16 autocast.

    `custom_hooks=[dict(type='Bf16Hook')]`. mmengine's AmpOptimWrapper casts training alone and needs a GPU, and its
    loops evaluate in float16. Weights, gradients and the optimizer stay float32. bfloat16 has float32's range, so that
    no loss scaling is needed.
    """

    priority = 'VERY_HIGH'  # before hooks that copy or compile the model

    def before_run(self, runner: Runner) -> None:
        use_bf16(runner.model.module if is_model_wrapper(runner.model) else runner.model)


def use_bf16(detector: nn.Module) -> None:
    """Make the forward passes of `detector` run in bfloat16, in place. Its predictions are float32."""
    detector.forward = _cast(detector.forward, detector)


def _cast(forward: Callable, detector: nn.Module) -> Callable:
    @functools.wraps(forward)
    def in_bf16(*args: Any, **kwargs: Any) -> Any:
        device = next(detector.parameters()).device.type
        with torch.autocast(device, torch.bfloat16):
            outputs = forward(*args, **kwargs)
        return [_convert_to_float32(one) for one in outputs] if _is_predictions(outputs) else outputs
    return in_bf16


def _is_predictions(outputs: Any) -> bool:
    return isinstance(outputs, list) and all(isinstance(one, DetDataSample) for one in outputs)


def _convert_to_float32(sample: DetDataSample) -> DetDataSample:
    """Convert predictions to float32 for NumPy, which has no bfloat16."""
    if 'pred_instances' in sample:
        found = sample.pred_instances
        for name, value in list(found.items()):
            if isinstance(value, Tensor) and value.dtype == torch.bfloat16:
                found.set_field(value.float(), name)
    return sample


def set_bf16(cfg: Config) -> None:
    """Make `cfg` run in bfloat16, in place, instead of any other mixed precision."""
    wrapper = cfg.get('optim_wrapper', {})
    if wrapper.get('type') == 'AmpOptimWrapper':
        wrapper.type = 'OptimWrapper'
        for key in ('loss_scale', 'dtype', 'use_fsdp'):
            wrapper.pop(key, None)
    cfg.custom_hooks = [*cfg.get('custom_hooks', []), ConfigDict(type='Bf16Hook')]
