"""Noise baseline: random noise of the same size as an attack, independent of the model."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor

from pit_downstream.utils.registry import ATTACKS
from pit_downstream.attacks.base import Attack
from pit_downstream.attacks.threat_model import NORMS

if TYPE_CHECKING:
    from pit_downstream.utils.protocols import Batch, Predictor, Streams


@ATTACKS.register('noise', source='control: evenly distributed over the ball')
@dataclass(frozen=True)
class Noise(Attack):
    """One uniform random perturbation from the ball. A model that it fools fails even without an attack."""

    norms: ClassVar[tuple[str, ...]] = (*NORMS, 'patch')

    def run(self, predictor: 'Predictor', batch: 'Batch', rng: 'Streams') -> Tensor:
        rows = range(len(batch.images))
        own = rng.rows(rows, [0] * len(rows), 'noise', batch.images.device)
        return batch.images + self.threat.draw(batch.images.shape, own)
