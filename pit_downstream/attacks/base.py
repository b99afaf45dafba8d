"""Attack base class. It guarantees results within the ball, in [0, 1] and unchanged on padding."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import Field, dataclass, fields, replace
from fractions import Fraction
from itertools import chain
from types import NoneType
from typing import TYPE_CHECKING, Any, ClassVar, cast, get_args

import torch
from torch import Tensor

from pit_downstream.utils.errors import InputError
from pit_downstream.utils.registry import ATTACKS
from pit_downstream.utils.spec import Spec, Value
from pit_downstream.attacks.threat_model import NORMS, Patches, ThreatModel

if TYPE_CHECKING:
    from pit_downstream.utils.protocols import Batch, Detector, Predictor, Streams

Predictors = Callable[[str], 'Predictor']  # returns the predictor of a name such as 'pit_s'
ARGUMENTS = {**dict.fromkeys(NORMS, ('norm', 'epsilon')), 'patch': ('count', 'side')}  # of the threat model, by norm


@dataclass(frozen=True)
class Attack(ABC):
    """Base class of attacks. A subclass is a frozen dataclass whose fields are the arguments of its Spec.

    threat: ball to search in. norms: supported norms. The first is the default.
    """

    norms: ClassVar[tuple[str, ...]] = NORMS

    threat: ThreatModel

    def __post_init__(self):
        if self.threat.norm not in self.norms:
            raise InputError(f'norm is one of {", ".join(self.norms)} for {type(self).__name__}, got '
                             f'{self.threat.norm!r}')

    def __call__(self, predictor: 'Predictor', batch: 'Batch', rng: 'Streams') -> Tensor:
        """Return attacked images (B, 3, H, W): in the ball around batch.images, in [0, 1], unchanged on padding.

        The model runs in evaluation mode. Its training mode, weights, gradients and statistics do not change.
        Non-finite values are replaced by those of the clean image. rng: one stream per image. Inside
        torch.inference_mode() the attack leaves that mode, which does not support gradients.
        """
        if not len(batch.images):
            return batch.images.clone()
        with torch.inference_mode(False), eval_mode(predictor), torch.no_grad():
            batch = clone_inference_tensors(batch)
            adversarial = self.run(predictor, batch, rng).detach()
            adversarial = torch.where(adversarial.isfinite(), adversarial, batch.images)
            return self.threat.project_images(batch.images, adversarial, batch.valid)

    @abstractmethod
    def run(self, predictor: 'Predictor', batch: 'Batch', rng: 'Streams') -> Tensor:
        """Compute the attacked images (B, 3, H, W). Gradients are off until the subclass enables them."""

    @classmethod
    def from_spec(cls, spec: Spec, predictors: Predictors | None = None) -> 'Attack':
        """Build the attack from a Spec. Override it if the arguments differ from the fields."""
        given = dict(spec.kwargs)
        threat = parse_threat_model(given, cls.norms, spec.name)
        known = {field.name: field for field in fields(cls) if field.init and field.name != 'threat'}
        for key in given:
            if key not in known:
                raise InputError(f'expected {", ".join([*ARGUMENTS[threat.norm], *known])} as arguments of '
                                 f'{spec.name}, got {key}; leave it out')
        return cls(threat, **{key: _convert_argument(known[key], value, spec.name) for key, value in given.items()})


def build_attack(spec: Spec, *, predictors: Predictors | None = None) -> Attack:
    """Build the attack given by a spec such as 'pgd(epsilon=8/255, norm='Linf', steps=20)'. The default norm is Linf.

    predictors: builds a predictor from its name, for attacks made on another model ('transfer').
    Raises InputError for an unknown name, or for an unknown, missing or invalid argument.
    """
    return ATTACKS[spec.name].from_spec(spec, predictors)


def parse_threat_model(given: dict[str, Value], norms: Sequence[str], name: str) -> ThreatModel:
    """Build the threat model from the arguments of an attack and remove them from `given`."""
    norm = given.pop('norm', norms[0])
    if norm not in norms:
        raise InputError(f'norm is one of {", ".join(norms)} for {name}, got {norm!r}')
    if norm == 'patch':
        counts: dict[str, Any] = {key: given.pop(key) for key in ARGUMENTS['patch'] if key in given}
        return Patches(**counts)
    epsilon = given.pop('epsilon', None)
    if isinstance(epsilon, bool) or not isinstance(epsilon, (int, float, Fraction)):
        raise InputError(f'expected a number as epsilon of {name}, got {"none" if epsilon is None else repr(epsilon)}; '
                         f'write {name}(epsilon=8/255)')
    return ThreatModel(str(norm), float(epsilon))


def _convert_argument(field: Field, value: Value, name: str) -> Value:
    """Convert a value to the type of its field. Fields that are neither numbers nor strings accept any value."""
    kinds = get_args(field.type) or (field.type,)
    if float in kinds and isinstance(value, (int, Fraction)) and not isinstance(value, bool):
        value = float(value)
    if set(kinds) <= {int, float, str, bool, NoneType} and type(value) not in kinds:
        expected = ' or '.join('None' if kind is NoneType else kind.__name__ for kind in kinds)
        raise InputError(f'expected {expected} as {field.name} of {name}, got {value!r}')
    return value


def check_detector(predictor: 'Predictor', attack: str) -> 'Detector':
    """Return `predictor` as a detector. Raises InputError for a classifier."""
    if not hasattr(predictor, 'detect'):
        raise InputError(f'expected a detector for {attack}, got {predictor.name}. '
                         'Pass the config of a detector as --model and its checkpoint as --weights.')
    return cast('Detector', predictor)


def clone_inference_tensors(batch: 'Batch') -> 'Batch':
    """Return the batch with copies of its inference tensors, which autograd rejects. Call outside inference mode."""
    images, valid = (tensor.clone() if tensor.is_inference() else tensor for tensor in (batch.images, batch.valid))
    return replace(batch, images=images, valid=valid)


@contextmanager
def eval_mode(predictor: 'Predictor') -> Iterator[None]:
    """Put the model in evaluation mode without weight gradients, and restore its state on exit.

    Raises InputError for weights that were created in inference mode, because autograd does not support them.
    """
    model = getattr(predictor, 'model', None)
    if not isinstance(model, torch.nn.Module):
        yield
        return
    frozen = [name for name, tensor in chain(model.named_parameters(), model.named_buffers()) if tensor.is_inference()]
    if frozen:
        raise InputError(f'expected weights with gradients, got {len(frozen)} made in torch.inference_mode(), the '
                         f'first of which is {frozen[0]}; build the model outside of that mode')
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
