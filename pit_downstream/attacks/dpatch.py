"""DPatch: one adversarial patch for any image of a detector (Liu et al. 2018, arXiv 1806.02299)."""

import hashlib
import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pit_downstream.utils.errors import InputError
from pit_downstream.attacks.base import Attack, check_detector, clone_inference_tensors
from pit_downstream.utils.path_checks import write_atomic
from pit_downstream.utils.registry import ATTACKS
from pit_downstream.utils.rng import BatchRng

if TYPE_CHECKING:
    from pit_downstream.utils.protocols import Batch, Detector, Predictor, Streams

SIDE, SHARE = 120, 120 / 416  # pixels; fraction of the shorter side of the image: veralauee/DPatch, cfgs/config.py
PLACES = ('corner', 'center')


@ATTACKS.register('dpatch', source='Liu et al. 2018, arXiv 1806.02299', of='detectors')
@dataclass(frozen=True, kw_only=True)
class DPatch(Attack):
    """Trained patch, the same for all images, pasted in the upper left corner or in the center of the image.

    file: output of `save_patch`. Without one the patch is random noise, a control for the area that it covers. share:
    patch side as a fraction of the shorter side of the image. place: 'corner' (upper left, as in the original) or
    'center'.
    epsilon=1 under Linf pastes the patch unchanged; a smaller one fades it.
    """

    norms = ('Linf',)
    usual: ClassVar[dict] = {'norm': 'Linf', 'epsilon': 1}  # tool default, because --epsilons is for perturbations

    file: str = ''
    share: float = SHARE
    place: str = 'corner'

    def __post_init__(self):
        super().__post_init__()
        _check_arguments(self.place, self.share)
        if self.file:
            load_patch(self.file)

    def run(self, predictor: 'Predictor', batch: 'Batch', rng: 'Streams') -> Tensor:
        check_detector(predictor, 'dpatch')
        patch = load_patch(self.file) if self.file else draw_patch(getattr(rng, 'seed', 0))
        return apply_patch(batch, patch.to(batch.images), share=self.share, place=self.place)


def train_patch(detector: 'Detector', batches: Iterable['Batch'], *, share: float = SHARE, place: str = 'corner',
                step: float = 5 / 255, loss_type: str = 'all', seed: int = 0) -> Iterator[Tensor]:
    """Yield the patch (3, SIDE, SIDE) in [0, 1] after each batch, trained to increase the losses of `loss_type`.

    The step along the sign of the gradient, 5 levels, is that of ART's DPatch, which takes 500 batches of 16 images.
    """
    _check_arguments(place, share)
    if not step > 0:
        raise InputError(f'expected a step of more than 0, got {step}')
    patch = draw_patch(seed).to(detector.device)
    for batch in batches:
        with torch.inference_mode(False), torch.enable_grad():
            patch = patch.clone() if patch.is_inference() else patch
            batch = clone_inference_tensors(batch)
            trained = patch.detach().requires_grad_()
            loss = detector.loss(apply_patch(batch, trained, share=share, place=place), batch, loss_type).sum()
            gradient, = torch.autograd.grad(loss, trained)
            if not (loss.isfinite() & gradient.isfinite().all()):
                raise InputError('Loss of the detector or its gradient is not finite: NaN or infinity among the images '
                                 f'{", ".join(sample.id for sample in batch.samples)}. Check the weights.')
            patch = (patch + step * gradient.sign()).clamp(0, 1).detach()
        yield patch


def _check_arguments(place: str, share: float) -> None:
    if place not in PLACES or not 0 < share <= 1:
        raise InputError(f'expected place as one of {", ".join(PLACES)} and share in 0..1, got {place!r} and {share}')


def draw_patch(seed: int) -> Tensor:
    return BatchRng(seed, ['dpatch']).uniform((1, 3, SIDE, SIDE))[0]


def apply_patch(batch: 'Batch', patch: Tensor, *, share: float = SHARE, place: str = 'corner') -> Tensor:
    """Paste the resized patch into every image of a batch. Differentiable in the patch."""
    images = []
    for image, valid in zip(batch.images, batch.valid[:, 0], strict=True):
        rows, columns = valid.any(1).nonzero().flatten(), valid.any(0).nonzero().flatten()
        side = max(1, round(share * min(len(rows), len(columns))))
        top, left = int(rows[0]), int(columns[0])
        if place == 'center':
            top, left = top + (len(rows) - side) // 2, left + (len(columns) - side) // 2
        small = F.interpolate(patch[None], size=(side, side), mode='bilinear', align_corners=False, antialias=True)[0]
        height, width = image.shape[1:]
        margins = (left, width - left - side, top, height - top - side)
        images.append(torch.where(F.pad(torch.ones_like(small), margins) > 0, F.pad(small, margins), image))
    return torch.stack(images)


def save_patch(patch: Tensor, folder: str | Path) -> Path:
    """Write a patch under a name with its content hash, so that records of two patches never mix."""
    values = patch.detach().float().cpu().numpy()
    path = Path(folder) / f'dpatch_{hashlib.sha256(values.tobytes()).hexdigest()[:8]}.npy'
    np.save(content := io.BytesIO(), values)
    write_atomic(path, content.getbuffer())
    return path


def load_patch(path: str | Path) -> Tensor:
    """Load a patch of `save_patch`: (3, S, S), float32, in [0, 1]. Raises InputError for anything else."""
    if not Path(path).is_file():
        raise InputError(f'expected a patch in {path}, found no such file. Make one with pit-downstream train-patch.')
    try:
        values = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise InputError(f'expected a patch in {path}, got no NumPy array: {str(error)[:200]}. Make one with '
                         'pit-downstream train-patch.') from error
    if not isinstance(values, np.ndarray) or values.dtype.kind != 'f':
        got = f'dtype {values.dtype}' if isinstance(values, np.ndarray) else 'several arrays'
        raise InputError(f'expected a patch of floats in {path}, got {got}. Make one with pit-downstream train-patch.')
    if values.ndim != 3 or values.shape[0] != 3 or values.shape[1] != values.shape[2] or not values.size:
        raise InputError(f'expected a patch of shape (3, side, side) in {path}, got {values.shape}. Make one with '
                         'pit-downstream train-patch.')
    if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= 1):
        raise InputError(f'expected a patch of finite values in 0..1 in {path}, got {values.min():g} to '
                         f'{values.max():g}. Divide levels by 255')
    return torch.from_numpy(values.astype(np.float32))
