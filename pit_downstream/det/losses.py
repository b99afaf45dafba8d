"""The losses of any mmdet detector for one image, differentiable in its pixels, the model in evaluation behavior.

Which of the numbers that a detector's loss() returns count for an attack follows from the words in their names:

| detectors | cls | box | rpn | never |
|---|---|---|---|---|
| one stage: RetinaNet, FCOS, ATSS, RTMDet, YOLOX | loss_cls, loss_centerness, loss_obj | loss_bbox, loss_dfl | - | - |
| heat maps: CenterNet, CornerNet | loss_center_heatmap, det_loss | loss_wh, loss_offset, off_loss | - | - |
| two stages: Faster and Mask R-CNN | loss_rpn_cls, loss_cls | loss_rpn_bbox, loss_bbox | loss_rpn_* | acc |
| cascades | loss_rpn_cls, s0.loss_cls, s1 ... | loss_rpn_bbox, s0.loss_bbox ... | loss_rpn_* | s0.acc ... |
| DETR | loss_cls | loss_bbox, loss_iou | - | d0.* ... |
| with two stages: Deformable DETR, DINO | loss_cls, enc_loss_cls | loss_*, enc_loss_bbox, _iou | enc_* | d0.*, dn_* |

'all' is everything but the last column, masks too; 'roi' is what of it is not 'rpn', where there is 'rpn'. Losses that
only help training, of decoder layers before the last and of denoising queries, belong to nothing that is predicted.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
from mmdet.models.detectors.base import BaseDetector
from mmdet.models.layers.transformer.ddq_detr_layers import DDQTransformerDecoder
from mmdet.models.roi_heads.base_roi_head import BaseRoIHead
from mmdet.utils import dist_utils
from torch import Tensor, nn

from pit_downstream.attacks.objective import KINDS

CLS = {'cls', 'obj', 'conf', 'centerness', 'heatmap', 'det', 'qfl'}  # what the score of a detection is made of
BOX = {'bbox', 'box', 'iou', 'xy', 'wh', 'dfl', 'offset', 'off', 'shape', 'loc', 'reg', 'pts', 'l1'}
MASK = {'mask', 'masks', 'semantic', 'segm', 'dice'}
PROPOSING = {'rpn', 'enc'}
TRAINING_ONLY = re.compile(r'd\d+|dn|aux')  # decoder layers before the last; denoising; auxiliary heads

# They ask `training` whether to return what losses need; whatever draws at random or learns lies further inside.
ASKING = (BaseDetector, BaseDenseHead, BaseRoIHead, DDQTransformerDecoder)


def compute_loss(model: nn.Module, data: Mapping[str, Any], kind: str, *, seed: int) -> Tensor:
    """A scalar: the losses of `kind` (KINDS) of the one image in `data`, added up.

    data: {'inputs', 'data_samples'} as the model takes them, with gt_instances. seed: of the samplers that pick anchors
    and proposals, so that the loss is one function of the pixels. Raises ValueError where the detector lacks the kind.
    """
    with _without_masks(model, wanted=needs_masks(model, kind)):
        losses = detector_losses(model, data, seed=seed)
    chosen = [value for key, value in losses.items() if counts(key, kind, losses)]
    if not chosen:
        raise ValueError(f'expected losses of kind {kind} from the detector, got {", ".join(losses)}; take another of '
                         f'{", ".join(KINDS)}')
    return torch.stack(chosen).sum()


def detector_losses(model: nn.Module, data: Mapping[str, Any], *, seed: int) -> dict[str, Tensor]:
    """Every number that loss() of the model returns, by name; what it returns per level of its pyramid is added up."""
    with loss_mode(model), _drawn_from(seed, data['inputs'].device), _alone(), restore_buffers(model):
        found = model(**data, mode='loss')
    return {key: sum(one.mean() for one in value) if isinstance(value, (list, tuple)) else value.mean()
            for key, value in found.items()}


def counts(key: str, kind: str, keys: Mapping[str, Any]) -> bool:
    """Whether the loss called `key` is one of `kind`, for a detector with the losses `keys`."""
    words = set(re.split(r'[._]', key))
    if 'loss' not in words or any(TRAINING_ONLY.fullmatch(word) for word in words):
        return False
    if kind in ('rpn', 'roi'):
        staged = any(PROPOSING & set(re.split(r'[._]', other)) for other in keys)
        return staged and bool(words & PROPOSING) == (kind == 'rpn')
    if kind in ('cls', 'box'):
        return bool(words & (CLS if kind == 'cls' else BOX)) and not words & MASK
    return True


def learns_masks(model: nn.Module) -> bool:
    """Whether a detector's losses ask for masks."""
    return bool(getattr(model, 'with_mask', False) or hasattr(model, 'panoptic_head')
                or hasattr(getattr(model, 'bbox_head', None), 'mask_head'))


def needs_masks(model: nn.Module, kind: str) -> bool:
    """Whether the losses of `kind` ask for masks; a mask head on proposals is left out where its own do not count."""
    return learns_masks(model) and (kind in ('all', 'roi') or not hasattr(model, 'roi_head'))


@contextmanager
def loss_mode(model: nn.Module) -> Iterator[None]:
    """Heads return what their losses need, as in training; dropout, batch norm and all else evaluate."""
    asking = [module for module in model.modules() if isinstance(module, ASKING) and not module.training]
    for module in asking:
        module.training = True  # not train(), which would take along what is inside
    try:
        yield
    finally:
        for module in asking:
            module.training = False


def fix_batch_norm_backward(model: nn.Module) -> None:
    """Make the gradients right that pass a batch norm with one image on a CPU.

    Where they come from tokens, as in DETR, their strides are (C, 1, W C, C), and PyTorch's kernel (2.14) takes their
    numbers for those of a contiguous tensor: what it returns points anywhere. A contiguous copy does no harm elsewhere.
    """
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.register_forward_hook(_contiguous_gradient)


def _contiguous_gradient(module: nn.Module, inputs: Any, out: Tensor) -> None:
    if out.requires_grad:
        out.register_hook(Tensor.contiguous)


@contextmanager
def _without_masks(model: nn.Module, *, wanted: bool) -> Iterator[None]:
    """The mask head of a detector in two stages costs more than all the rest; it is not asked in vain."""
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
def _drawn_from(seed: int, device: torch.device) -> Iterator[None]:
    """mmdet's samplers know torch's global generator only: they see it seeded, and the caller's state returns."""
    with torch.random.fork_rng(devices=[device] if device.type == 'cuda' else []):
        torch.manual_seed(seed)
        yield


@contextmanager
def _alone() -> Iterator[None]:
    """mmdet divides its losses by counts over all ranks; an image's loss here is its own affair, and ranks do not wait
    for each other."""
    with patch.object(dist_utils, 'dist', SimpleNamespace(is_available=lambda: False)):
        yield


@contextmanager
def restore_buffers(model: nn.Module) -> Iterator[None]:
    """Some losses count what they have seen, in buffers (SeesawLoss) or lists (DynamicRoIHead, which after 100 images
    sets its thresholds by them); they forget it again."""
    counting = [(module, name, buffer.clone()) for module in model.modules() if not isinstance(
        module, nn.modules.batchnorm._NormBase) for name, buffer in module._buffers.items() if buffer is not None]
    listing = [(kept, len(kept)) for module in model.modules() for kept in vars(module).values()
               if isinstance(kept, list)]
    yield
    for kept, length in listing:
        del kept[length:]
    for module, name, before in counting:
        if not torch.equal(module._buffers[name], before):
            module._buffers[name] = before
