"""Entry points of all corruptions, from uint8 images to uint8 images."""

from collections.abc import Callable, Iterator, Sequence
from functools import update_wrapper
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pit_downstream.utils.errors import InputError
from pit_downstream.utils.registry import CORRUPTIONS, Entry, Registry
from pit_downstream.utils.rng import BatchRng

if TYPE_CHECKING:
    from pit_downstream.utils.protocols import Rng

REFERENCE = 'imagecorruptions 1.1.2'  # its strengths and oddities are kept
VARIANTS: Registry[Callable] = Registry('variant')  # 'elastic_transform:hendrycks'
MIN_SIDE = 32  # pixels per side, as in the reference
TILE_VALUES = 2 ** 18  # values processed at a time on a CPU: as float32 they fit in a core's L2 cache
ROUNDING = 2 ** -11  # gray levels added before truncation: 100.0 must not become 99 through float32 rounding


class batched_severities:
    """Decorator for a corruption written as a generator over strengths: (images, strengths, rng) -> results.

    Intermediate results shared by the strengths are computed once. For a single strength the corruption returns the
    generator's first result.
    """

    def __init__(self, generate: Callable[[Tensor, Sequence[Any], 'Rng'], Iterator[Tensor]]):
        self.generate = generate
        update_wrapper(self, generate)

    def __call__(self, images: Tensor, strength: Any, rng: 'Rng') -> Tensor:
        return next(iter(self.generate(images, (strength,), rng)))


def corrupt(images: Tensor, name: str, severity: int, rng: 'Rng', *, variant: str | None = None) -> Tensor:
    """Corrupt a batch of images.

    images: uint8 (B, 3, H, W), RGB, H and W at least 32, any device. severity: 1..5. rng: a `BatchRng` with one stream
    per image, of which the streams for `name` are used, or any other `Rng`, used unchanged.
    variant: 'hendrycks' for the version of hendrycks/robustness. Returns uint8 of the same shape.
    """
    return corrupt_severities(images, name, (severity,), rng, variant=variant)[0]


def corrupt_severities(images: Tensor, name: str, severities: Sequence[int], rng: 'Rng', *,
                       variant: str | None = None) -> Tensor:
    """Corrupt a batch at several severities at once. Results are identical to separate `corrupt` calls.

    Noise fields, textures and displacements are drawn once per image. Returns uint8 (S, B, 3, H, W).
    """
    strengths = find_entry(name, variant).metadata['strengths']
    wrong = [severity for severity in severities if severity not in range(1, len(strengths) + 1)]
    if wrong:
        raise InputError(f'severity must be in 1..{len(strengths)}, got {wrong[0]!r}. For clean images omit the '
                         'corruption.')
    return corrupt_strengths(images, name, [strengths[severity - 1] for severity in severities], rng, variant=variant)


def corrupt_strengths(images: Tensor, name: str, strengths: Sequence[Any], rng: 'Rng', *, variant: str | None = None
                      ) -> Tensor:
    """Corrupt a batch at several strengths: as `corrupt_severities`, with strengths in place of severities."""
    entry = find_entry(name, variant)
    check_images(images)
    if isinstance(rng, BatchRng) and len(rng) != len(images):
        raise InputError(f'rng must have one id per image, {len(images)}, got {len(rng)}. Pass one id per image.')
    out = torch.empty((len(strengths), *images.shape), dtype=torch.uint8, device=images.device)
    for part in split_into_tiles(images) if isinstance(rng, BatchRng) else (slice(None),):
        part_rng = rng.part(part, name, images.device) if isinstance(rng, BatchRng) else rng
        for result, levels in zip(out, _run(images[part].contiguous(), entry, strengths, part_rng), strict=True):
            result[part] = levels
    return out


def corrupt_images(images: Tensor, name: str, severity: int, *, seed: int = 0,
                   ids: Sequence[int | str] | None = None, variant: str | None = None) -> Tensor:
    """Corrupt a batch without an `Rng`. The pixels depend only on (seed, id, name, severity).

    ids: one per image (default: 0, 1, 2 ...).
    """
    ids = range(len(images)) if ids is None else ids
    return corrupt(images, name, severity, BatchRng(seed, ids), variant=variant)


def find_entry(name: str, variant: str | None) -> Entry[Callable]:
    """Return a registered corruption or its variant. Raises InputError that lists similar names."""
    entry = CORRUPTIONS.get_entry(name)
    return entry if variant is None else VARIANTS.get_entry(f'{name}:{variant}')


def truncate_levels(levels: Tensor, *, scale: float = 1) -> Tensor:
    """Return `scale` times the values, clipped and truncated to int16 gray levels.

    Truncation instead of rounding follows the reference's np.uint8(). torch vectorizes the conversion of floats to
    int16, but not to uint8.
    """
    return (levels * scale).add_(ROUNDING).clamp_(0, 255).to(torch.int16)


def _run(images: Tensor, entry: Entry[Callable], strengths: Sequence[Any], rng: 'Rng') -> Iterator[Tensor]:
    """Yield the result at each strength in integer gray levels.

    Raw corruptions take uint8 and return gray levels in float or uint8. Others take and return floats in [0, 1].
    """
    raw, corruption = entry.metadata.get('raw', False), entry.value
    inputs = images if raw else images.float().div_(255)
    if isinstance(corruption, batched_severities):
        results = corruption.generate(inputs, strengths, rng)
    else:
        results = _run_each(inputs, corruption, strengths, rng)
    for result in results:
        yield result if result.dtype == torch.uint8 else truncate_levels(result, scale=1 if raw else 255)


def _run_each(inputs: Tensor, corruption: Callable, strengths: Sequence[Any], rng: 'Rng') -> Iterator[Tensor]:
    for strength in strengths:
        if isinstance(rng, BatchRng):
            rng.restart(keep=len(strengths) > 1)
        yield corruption(inputs, strength, rng)


def split_into_tiles(batch: Tensor) -> Iterator[slice]:
    """Split a batch into slices that fit in a CPU's cache. On other devices the batch is one slice."""
    count = len(batch)
    if count and batch.device.type == 'cpu':
        count = max(1, TILE_VALUES // batch[0].numel())
    for start in range(0, len(batch), max(1, count)):
        yield slice(start, start + count)


def check_images(images: Tensor) -> None:
    if images.dtype != torch.uint8 or images.dim() != 4 or images.shape[1] != 3:
        raise InputError(f'images must be uint8 (B, 3, H, W) in RGB, got {images.dtype} {tuple(images.shape)}. '
                         'Scale, convert or unsqueeze them first.')
    if min(images.shape[-2:]) < MIN_SIDE:
        raise InputError(f'Images must have at least {MIN_SIDE} pixels per side, got {images.shape[-2]} x '
                         f'{images.shape[-1]}. Enlarge them first.')
