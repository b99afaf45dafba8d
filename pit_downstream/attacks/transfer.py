"""Transfer attack: adversarial images made on one model, evaluated on another."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor

from pit_downstream.utils.errors import InputError
from pit_downstream.utils.registry import ATTACKS
from pit_downstream.utils.spec import Spec
from pit_downstream.attacks.base import Attack, Predictors, build_attack
from pit_downstream.attacks.threat_model import NORMS

if TYPE_CHECKING:
    from pit_downstream.utils.protocols import Batch, Predictor, Streams


@ATTACKS.register('transfer', source='Papernot et al. 2016, arXiv 1605.07277')
@dataclass(frozen=True, kw_only=True)
class Transfer(Attack):
    """Transfer of adversarial images from `source`, without queries to the attacked model.

    Images that fool at one epsilon count as fooled at larger ones, even if the attack on the source runs to its end.

    attack: attack on the source, in the same ball. source: predictor with the same image size and labels.
    """

    norms: ClassVar[tuple[str, ...]] = (*NORMS, 'patch')

    source: 'Predictor'
    attack: Attack

    @classmethod
    def from_spec(cls, spec: Spec, predictors: Predictors | None = None) -> 'Transfer':
        """Build from transfer(source='pit_s', attack='mim', epsilon=8/255, ...). Other arguments belong to the attack.

        The default attack is mim. It runs to its end, for the largest loss, unless run_to_end=False.
        """
        source, name = spec.get('source'), spec.get('attack', 'mim')
        if not isinstance(source, str) or not isinstance(name, str) or name == spec.name:
            raise InputError(f'expected a model and another attack as texts, got {spec}; write '
                             "transfer(source='pit_s', attack='mim', epsilon=8/255)")
        if predictors is None:
            raise InputError(f'expected a way to build {source} for {spec}, got none; give build_attack(predictors=)')
        inner = dict(spec.without('source', 'attack').kwargs)
        if 'run_to_end' in getattr(ATTACKS[name], '__dataclass_fields__', {}):
            inner.setdefault('run_to_end', True)
        attack = build_attack(Spec.of(name, **inner), predictors=predictors)
        return cls(attack.threat, source=predictors(source), attack=attack)

    def run(self, predictor: 'Predictor', batch: 'Batch', rng: 'Streams') -> Tensor:
        mine, theirs = (getattr(getattr(model, 'view', None), 'size', None) for model in (predictor, self.source))
        if mine != theirs:
            raise InputError(f'expected a source for images of {mine} pixels as {predictor.name}, got {theirs} of '
                             f'{self.source.name}; take a model of the same size')
        return self.attack(self.source, batch, rng)
