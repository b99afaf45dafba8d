"""The 15 corruptions of ImageNet-C, its 4 hold-out corruptions, and occlusion.

Inputs are uint8 RGB batches of any size from 32 px, on any device. Names, groups and strengths are in
`utils.registry.CORRUPTIONS`, which is filled when this package is imported.
"""

# isort: off (the registry keeps this order, the order of the paper)
from pit_downstream.corruptions import noise, blur, weather, digital, extra, occlusion, variants  # noqa: F401
# isort: on
from pit_downstream.corruptions.base import (
    corrupt,
    corrupt_images,
    corrupt_severities,
    corrupt_strengths,
    batched_severities,
)
from pit_downstream.utils.rng import BatchRng, compute_seed

__all__ = [
    'BatchRng', 'batched_severities', 'corrupt', 'corrupt_images', 'corrupt_severities', 'corrupt_strengths',
    'compute_seed']
