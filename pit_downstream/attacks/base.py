"""Attack: whatever a subclass does, what comes out lies in the ball, in [0, 1] and off the padding."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from fractions import Fraction
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..core.registry import ATTACKS
from ..core.spec import Spec
from .threat import ThreatModel

if TYPE_CHECKING:
    from ..core.contracts import Batch, Predictor, Streams


@dataclass(frozen=True)
class Attack(ABC):
    """Images against a model. A subclass is a frozen dataclass whose fields are the arguments of its Spec.

    threat: the ball in which it searches.
    """

    threat: ThreatModel

    def __call__(self, predictor: 'Predictor', batch: 'Batch', rng: 'Streams') -> Tensor:
        """Attacked images (B, 3, H, W): within the threat model around batch.images, in [0, 1], same as them on padding.

        The model is in evaluation mode for as long as it takes, and comes out as it was: no weight, no gradient, no
        statistic of it changes. rng: one stream per image of the batch.
        """
        with at_rest(predictor), torch.no_grad():
            found = self.run(predictor, batch, rng)
            return self.threat.within(batch.images, found.detach(), batch.valid)

    @abstractmethod
    def run(self, predictor: 'Predictor', batch: 'Batch', rng: 'Streams') -> Tensor:
        """What a subclass writes: images (B, 3, H, W). Gradients are off until it turns them on."""


def build_attack(spec: Spec) -> Attack:
    """The attack that 'pgd(epsilon=8/255, norm='Linf', steps=20)' names; norm is Linf unless it is given.

    Raises LookupError for an unknown name, ValueError for an unknown or missing argument.
    """
    kind = ATTACKS[spec.name]
    known = [field.name for field in fields(kind) if field.name != 'threat']
    given = dict(spec.kwargs)
    norm, epsilon = given.pop('norm', 'Linf'), given.pop('epsilon', None)
    strange = [key for key in given if key not in known]
    if strange:
        raise ValueError(f'expected norm, epsilon{"".join(f", {name}" for name in known)} as arguments of '
                         f'{spec.name}, got {strange[0]}; leave it out')
    if epsilon is None:
        raise ValueError(f'expected an epsilon for {spec.name}, got none; write {spec.name}(epsilon=8/255)')
    threat = ThreatModel(norm, float(epsilon))
    return kind(threat, **{key: float(value) if isinstance(value, Fraction) else value for key, value in given.items()})


@contextmanager
def at_rest(predictor: 'Predictor') -> Iterator[None]:
    """The model of a predictor in evaluation mode and its weights without gradients; as it was before on leaving."""
    model = getattr(predictor, 'model', None)
    if not isinstance(model, torch.nn.Module):
        yield
        return
    training = [module for module in model.modules() if module.training]
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    model.eval()
    for parameter in learning:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for module in training:
            module.training = True
        for parameter in learning:
            parameter.requires_grad_(True)
