"""A raw batch under the conditions of one pass."""

from collections.abc import Iterator, Sequence

from torch import Tensor

from ..core.condition import Condition
from ..core.registry import CORRUPTIONS
from ..core.spec import Spec
from ..corruptions.base import corrupt_severities, entry_of
from ..corruptions.jpeg import Jpeg
from ..corruptions.rng import BatchRng
from .loading import RawBatch

ARGUMENTS = ('severity', 'variant', 'jpeg', 'order')


def check_corruption(spec: Spec | None) -> None:
    """Raise LookupError or ValueError unless `spec` names a corruption, its severity and nothing unknown."""
    if spec is None:
        return
    entry = entry_of(spec.name, spec.get('variant'))
    strange = [key for key, _ in spec.kwargs if key not in ARGUMENTS]
    if strange:
        raise ValueError(f'expected {", ".join(ARGUMENTS)} as arguments of a corruption, got {strange[0]} in {spec}')
    severities = len(entry.about['strengths'])
    if spec.get('severity') not in range(1, severities + 1):
        raise ValueError(f'severity is 1..{severities}, got {spec.get("severity")} in {spec}; for clean images leave '
                         'the corruption out')
    if spec.get('order') not in (None, 'bgr'):
        raise ValueError(f"expected order='bgr' or none in a corruption, got {spec}")


def corrupted(batch: RawBatch, conditions: Sequence[Condition], seed: int) -> Iterator[Tensor]:
    """uint8 images (B, 3, H, W) under each condition; these differ in severity only.

    Argument jpeg=85 saves them as the published ImageNet-C was saved, and reads them back. order='bgr' shows the
    corruption red and blue exchanged, as mmdet's robustness tool does.
    """
    specs = [condition.corruption for condition in conditions]
    if specs[0] is None:
        yield from (batch.images for _ in conditions)
        return
    backwards = specs[0].get('order') == 'bgr'
    given = batch.images.flip(1) if backwards else batch.images
    together = corrupt_severities(given, specs[0].name, [spec.get('severity') for spec in specs],
                                  BatchRng(seed, batch.ids), variant=specs[0].get('variant'))
    for spec, images in zip(specs, together, strict=True):
        images = images.flip(1) if backwards else images
        yield images if spec.get('jpeg') is None else Jpeg(images).at(spec.get('jpeg'))
