"""Losses of any mmdet detector for one image, differentiable in its pixels, with the model in evaluation mode.

The words in the names of the losses that a detector's loss() returns select those of an attack:

| detectors | cls | box | rpn | never |
|---|---|---|---|---|
| one stage: RetinaNet, FCOS, ATSS, RTMDet, YOLOX | loss_cls, loss_centerness, loss_obj | loss_bbox, loss_dfl | - | - |
| heat maps: CenterNet, CornerNet | loss_center_heatmap, det_loss | loss_wh, loss_offset, off_loss | - | - |
| two stages: Faster and Mask R-CNN | loss_rpn_cls, loss_cls | loss_rpn_bbox, loss_bbox | loss_rpn_* | acc |
| cascades | loss_rpn_cls, s0.loss_cls, s1 ... | loss_rpn_bbox, s0.loss_bbox ... | loss_rpn_* | s0.acc ... |
| DETR | loss_cls | loss_bbox, loss_iou | - | d0.* ... |
| with two stages: Deformable DETR, DINO | loss_cls, enc_loss_cls | loss_*, enc_loss_bbox, _iou | enc_* | d0.*, dn_* |

'all' is all losses, including masks, except the last column. 'roi' is 'all' without 'rpn', for detectors with 'rpn'
losses. Losses of earlier decoder layers and of denoising queries only help training and do not affect predictions.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import torch
from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
from mmdet.models.detectors.base import BaseDetector
from mmdet.models.layers.transformer.ddq_detr_layers import DDQTransformerDecoder
from mmdet.models.roi_heads.base_roi_head import BaseRoIHead
from mmdet.utils import dist_utils
from torch import Tensor, nn

from pit_downstream.attacks.objective import LOSS_TYPES
from pit_downstream.utils.errors import InputError

CLS = {'cls', 'obj', 'conf', 'centerness', 'heatmap', 'det', 'qfl'}  # components of the score of a detection
BOX = {'bbox', 'box', 'iou', 'xy', 'wh', 'dfl', 'offset', 'off', 'shape', 'loc', 'reg', 'pts', 'l1'}
MASK = {'mask', 'masks', 'semantic', 'segm', 'dice'}
PROPOSING = {'rpn', 'enc'}
TRAINING_ONLY = re.compile(r'd\d+|dn|aux')  # decoder layers before the last; denoising; auxiliary heads

# They return the inputs of their losses if `training` is set. Randomness and statistics are in modules inside them.
LOSS_MODULES = (BaseDetector, BaseDenseHead, BaseRoIHead, DDQTransformerDecoder)


def compute_loss(model: nn.Module, data: Mapping[str, Any], loss_type: str, *, seed: int) -> Tensor:
    """Compute the sum of the losses of `loss_type` (LOSS_TYPES) of the one image in `data`, a scalar.

    data: model inputs {'inputs', 'data_samples'}, with gt_instances. seed: of the samplers that pick anchors and
    proposals, so that the loss is a deterministic function of the pixels. Raises InputError if the detector has no such
    loss.
    """
    with _disable_mask_head(model, wanted=needs_masks(model, loss_type)):
        losses = compute_losses(model, data, seed=seed)
    chosen = [value for key, value in losses.items() if is_loss_of_type(key, loss_type, losses)]
    if not chosen:
        raise InputError(f'expected losses of type {loss_type} from the detector, got {", ".join(losses)}; take '
                         f'another of {", ".join(LOSS_TYPES)}')
    return torch.stack(chosen).sum()


def compute_losses(model: nn.Module, data: Mapping[str, Any], *, seed: int) -> dict[str, Tensor]:
    """Return the mean of every value of the model's loss() by name. Values per pyramid level are summed."""
    with (use_loss_mode(model), _seed_samplers(seed, data['inputs'].device), _disable_distributed(),
          restore_buffers(model)):
        found = model(**data, mode='loss')
    return {key: sum(one.mean() for one in value) if isinstance(value, (list, tuple)) else value.mean()
            for key, value in found.items()}


def is_loss_of_type(key: str, loss_type: str, keys: Mapping[str, Any]) -> bool:
    """Return whether the loss called `key` is one of `loss_type`, for a detector with the losses `keys`."""
    words = set(re.split(r'[._]', key))
    if 'loss' not in words or any(TRAINING_ONLY.fullmatch(word) for word in words):
        return False
    if loss_type in ('rpn', 'roi'):
        staged = any(PROPOSING & set(re.split(r'[._]', other)) for other in keys)
        return staged and bool(words & PROPOSING) == (loss_type == 'rpn')
    if loss_type in ('cls', 'box'):
        return bool(words & (CLS if loss_type == 'cls' else BOX)) and not words & MASK
    return True


def has_mask_losses(model: nn.Module) -> bool:
    """Return whether a detector's losses need masks."""
    return bool(getattr(model, 'with_mask', False) or hasattr(model, 'panoptic_head')
                or hasattr(getattr(model, 'bbox_head', None), 'mask_head'))


def needs_masks(model: nn.Module, loss_type: str) -> bool:
    """Return whether the losses of `loss_type` need masks. RoI mask heads without a loss of this type
    are disabled."""
    return has_mask_losses(model) and (loss_type in ('all', 'roi') or not hasattr(model, 'roi_head'))


@contextmanager
def use_loss_mode(model: nn.Module) -> Iterator[None]:
    """Make heads return the inputs of their losses, as in training. Everything else stays in evaluation mode."""
    heads = [module for module in model.modules() if isinstance(module, LOSS_MODULES) and not module.training]
    for module in heads:
        module.training = True  # not train(), which would include the modules inside
    try:
        yield
    finally:
        for module in heads:
            module.training = False


def fix_batch_norm_backward(model: nn.Module) -> None:
    """Fix the gradients through a batch norm with one image on a CPU.

    Gradients that come from tokens, as in DETR, have the strides (C, 1, W C, C). PyTorch's kernel (2.14) reads them as
    contiguous and returns wrong numbers. A contiguous copy does no harm elsewhere.
    """
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.register_forward_hook(_make_gradient_contiguous)


def _make_gradient_contiguous(module: nn.Module, inputs: Any, out: Tensor) -> None:
    if out.requires_grad:
        out.register_hook(Tensor.contiguous)


@contextmanager
def _disable_mask_head(model: nn.Module, *, wanted: bool) -> Iterator[None]:
    """Disable the mask head of a two-stage detector unless `wanted`. It costs more than all the rest."""
    parts = getattr(getattr(model, 'roi_head', None), '_modules', {})
    head = parts.get('mask_head')
    if wanted or head is None:
        yield
        return
    parts['mask_head'] = None
    try:
        yield
    finally:
        parts['mask_head'] = head


@contextmanager
def _seed_samplers(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch's global generator, the only one that mmdet's samplers use, and restore the caller's state."""
    with torch.random.fork_rng(devices=[device] if device.type == 'cuda' else []):
        torch.manual_seed(seed)
        yield


@contextmanager
def _disable_distributed() -> Iterator[None]:
    """Disable torch.distributed in mmdet's losses, which are divided by counts over all ranks.

    The loss of an image is then independent of other ranks, and ranks do not wait for each other.
    """
    before = dist_utils.dist
    dist_utils.dist = SimpleNamespace(is_available=lambda: False)
    try:
        yield
    finally:
        dist_utils.dist = before


@contextmanager
def restore_buffers(model: nn.Module) -> Iterator[None]:
    """Restore the statistics that some losses keep in buffers (SeesawLoss) or lists (DynamicRoIHead).

    DynamicRoIHead sets its thresholds by them after 100 images.
    """
    counting = [(module, name, buffer.clone()) for module in model.modules() if not isinstance(
        module, nn.modules.batchnorm._NormBase) for name, buffer in module._buffers.items() if buffer is not None]
    listing = [(kept, len(kept)) for module in model.modules() for kept in vars(module).values()
               if isinstance(kept, list)]
    yield
    for kept, length in listing:
        del kept[length:]
    for module, name, before in counting:
        if not torch.equal(module.get_buffer(name), before):
            module._buffers[name] = before
