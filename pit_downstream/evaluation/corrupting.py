"""Apply the conditions of one pass to a raw batch."""

from collections.abc import Iterator, Sequence
from dataclasses import fields
from fractions import Fraction
from typing import Any, cast

from torch import Tensor

from pit_downstream.results.condition import Condition
from pit_downstream.utils.errors import InputError
from pit_downstream.utils.spec import Spec
from pit_downstream.corruptions.base import MIN_SIDE, corrupt_strengths, find_entry
from pit_downstream.corruptions.jpeg import apply_jpeg
from pit_downstream.utils.rng import BatchRng
from pit_downstream.evaluation.data_loading import RawBatch

ARGUMENTS = ('severity', 'variant', 'jpeg', 'order')


def arguments(spec: Spec) -> tuple[str, ...]:
    """Return the arguments that can set the strength of this corruption in place of a severity."""
    given = find_entry(spec.name, _get_variant(spec)).metadata.get('given')
    return tuple(field.name for field in fields(given)) if given else ()


def check_corruption(spec: Spec | None) -> None:
    """Raise InputError unless `spec` has a known corruption, its strength and no unknown arguments."""
    if spec is None:
        return
    own = arguments(spec)
    unknown = [key for key, _ in spec.kwargs if key not in (*ARGUMENTS, *own)]
    if unknown:
        raise InputError(f'expected {", ".join((*ARGUMENTS, *own))} as arguments of a corruption, got {unknown[0]} in '
                         f'{spec}')
    if spec.get('order') not in (None, 'bgr'):
        raise InputError(f"expected order='bgr' or none in a corruption, got {spec}")
    _strength(spec)


def _get_variant(spec: Spec) -> str | None:
    return cast(str | None, spec.get('variant'))  # find_entry rejects other types as unknown


def _strength(spec: Spec) -> Any:
    """Return the strength given by a severity or by the corruption's custom arguments."""
    entry = find_entry(spec.name, _get_variant(spec))
    own = {key: value for key, value in spec.kwargs if key in arguments(spec)}
    if own and spec.get('severity') is not None:
        raise InputError(f'expected a severity or {", ".join(own)}, got both in {spec}; leave one out')
    if own:
        return entry.metadata['given'](**{key: float(value) if isinstance(value, Fraction) else value
                                          for key, value in own.items()})
    strengths = entry.metadata['strengths']
    severity = spec.get('severity')
    if not isinstance(severity, int) or severity not in range(1, len(strengths) + 1):
        raise InputError(f'severity must be in 1..{len(strengths)}, got {severity} in {spec}. For clean images omit '
                         'the corruption.')
    return strengths[severity - 1]


def apply_corruption(batch: RawBatch, conditions: Sequence[Condition], seed: int) -> Iterator[Tensor]:
    """Yield uint8 images (B, 3, H, W) under each condition. The conditions differ only in strength.

    Argument jpeg=85 saves and reloads the images as the published ImageNet-C was saved. order='bgr' applies the
    corruption with red and blue swapped, as mmdet's robustness tool does.
    """
    specs = [condition.corruption for condition in conditions if condition.corruption is not None]
    if not specs:
        yield from (batch.images for _ in conditions)
        return
    if len(batch) and min(batch.images.shape[-2:]) < MIN_SIDE:
        height, width = batch.images.shape[-2:]
        raise InputError(f'expected images of {MIN_SIDE} pixels a side or more under a corruption, got {height} x '
                         f'{width} in {batch.ids[0]}; take it out of the dataset, or measure without corruptions')
    backwards = specs[0].get('order') == 'bgr'
    seen = batch.images.flip(1) if backwards else batch.images
    together = corrupt_strengths(seen, specs[0].name, list(map(_strength, specs)), BatchRng(seed, batch.ids),
                                 variant=_get_variant(specs[0]))
    for spec, images in zip(specs, together, strict=True):
        images = images.flip(1) if backwards else images
        quality = cast(int | None, spec.get('jpeg'))
        yield images if quality is None else next(apply_jpeg(images, (quality,)))
