"""AutoAttack: a sequence of attacks, each on the images that are still robust.

Croce & Hein 2020, arXiv 2003.01690. Order and settings follow fra31/auto-attack a392200, autoattack.py.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from pit_downstream.utils.errors import InputError
from pit_downstream.utils.protocols import Batch, Outputs, Sample
from pit_downstream.utils.registry import ATTACKS
from pit_downstream.utils.rng import BatchRng
from pit_downstream.attacks.apgd import APGD, TargetedAPGD
from pit_downstream.attacks.base import Attack
from pit_downstream.attacks.sanity_checks import check_cascade
from pit_downstream.attacks.fab import FAB, TargetedFAB
from pit_downstream.attacks.losses import warn_once
from pit_downstream.attacks.objective import LOSSES, ClassifierObjective
from pit_downstream.attacks.search_engine import Search, correct_mask
from pit_downstream.attacks.square import Square
from pit_downstream.attacks.threat_model import ThreatModel

if TYPE_CHECKING:
    from pit_downstream.utils.protocols import Classifier, Predictor, Streams

VERSIONS = ('standard', 'plus', 'rand')
EOT = 20  # passes over which 'rand' averages a gradient
ROWS = {'cpu': 64, 'cuda': 256}  # parallel searches: more exceed a CPU's cache, fewer underuse a GPU


@ATTACKS.register('autoattack', source='Croce & Hein 2020, arXiv 2003.01690; fra31/auto-attack a392200')
@dataclass(frozen=True, kw_only=True)
class AutoAttack(Attack):
    """AutoAttack ensemble. An image is robust when no member fools it, and is then returned unchanged.

    A warning is logged if Square, which uses no gradient, fools images of a batch that all previous members left.

    version: 'standard'; 'plus' with APGD-DLR, untargeted FAB and five restarts; 'rand' for stochastic models. effort:
    share of the official steps and queries, in (0, 1]; only 1 is AutoAttack. width: parallel searches, by default the
    batch size.
    """

    version: str = 'standard'
    effort: float = 1
    width: int | None = None

    def __post_init__(self):
        super().__post_init__()
        if self.version not in VERSIONS:
            raise InputError(f'version is one of {", ".join(VERSIONS)}, got {self.version!r}')
        if not 0 < self.effort <= 1:
            raise InputError(f'effort is a share in (0, 1] of the official steps, got {self.effort}')

    def make_members(self) -> tuple[Search, ...]:
        """Return the attacks in the order in which they run."""
        steps, queries = (math.ceil(self.effort * official) for official in (100, 5000))
        l1 = self.threat.norm == 'L1'

        def make_apgd(loss: str, restarts: int, eot: int = 1) -> APGD:
            return APGD(self.threat, steps=steps, loss=loss, restarts=restarts, eot=eot)
        targeted = TargetedAPGD(self.threat, steps=steps, targets=5 if l1 and self.version == 'standard' else 9)
        targeted_fab = TargetedFAB(self.threat, steps=steps, targets=9)
        square = Square(self.threat, steps=queries)
        if self.version == 'rand':
            return make_apgd('ce', 1, EOT), make_apgd('dlr', 1, EOT)
        if self.version == 'plus':
            return (make_apgd('ce', 5), make_apgd('dlr', 5), FAB(self.threat, steps=steps, restarts=5), square,
                    targeted, targeted_fab)
        return make_apgd('ce', 5 if l1 else 1), targeted, targeted_fab, square

    def run(self, predictor: 'Predictor', batch: Batch, rng: 'Streams') -> Tensor:
        if not hasattr(predictor, 'logits'):
            raise InputError('expected a classifier for autoattack, got a predictor without logits; choose pgd')
        if self.effort < 1:
            warn_once(f'autoattack with an effort of {self.effort:g} is weaker than AutoAttack: report it by another '
                      'name')
        rough = getattr(predictor, 'rough', False)
        objective = ClassifierObjective(cast('Classifier', predictor), batch, LOSSES['ce'], width=self.width)
        adversarial, left = batch.images.clone(), correct_mask(objective, batch.images, rough)
        num_robust = [('clean', int(left.sum()))]
        for member in self.make_members():
            if not num_robust[-1][1]:
                break
            images, fooled = member.run_search(objective.replace_loss(member.loss), batch.images, rng, among=left,
                                               width=self.width, rough=rough)
            if isinstance(member, FAB):
                images = self.threat.project_images(batch.images, images, batch.valid)
                fooled = self._verify_nearest(objective, images, left & ~fooled, fooled)
            if self.version == 'rand' and bool(fooled.any()):  # may be chance: verify with one more draw
                fooled[fooled.clone()] = objective.verify(images[fooled], fooled.nonzero().flatten())
            adversarial[fooled] = images[fooled]
            left &= ~fooled
            num_robust.append(('square' if isinstance(member, Square) else type(member).__name__, int(left.sum())))
        for warning in check_cascade(num_robust):
            warn_once(warning)
        return adversarial

    def _verify_nearest(self, objective: ClassifierObjective, images: Tensor, rest: Tensor, fooled: Tensor) -> Tensor:
        """Project FAB's nearest images into the ball, where they may still fool the model.

        The original does not count these images. AutoAttack could then be weaker than FAB alone under this evaluation.
        """
        fooled = fooled.clone()
        for part in rest.nonzero().flatten().split(self.width or len(images)):
            if len(part):
                fooled[part] = objective.verify(images[part], part)
        return fooled


def autoattack(model: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor, norm: str = 'Linf',
               epsilon: float = 8 / 255, seed: int = 0, *, version: str = 'standard', batch_size: int | None = None
               ) -> Tensor:
    """Return adversarial images (N, 3, H, W). Images that AutoAttack cannot fool are returned unchanged.

    model: maps images (B, 3, H, W) in [0, 1] to logits (B, K), including normalization. images: (N, 3, H, W) in
    [0, 1], on the model's device. labels: (N,). norm: 'Linf', 'L2' or 'L1'. epsilon: in the scale of the images.
    seed: the random draws of image i depend only on seed and i. batch_size: images per forward pass.

    Raises InputError for images outside [0, 1] and for mismatched shapes.
    """
    if images.ndim != 4 or labels.shape != images.shape[:1]:
        raise InputError(f'expected images (N, 3, H, W) and labels (N,), got {tuple(images.shape)} and '
                         f'{tuple(labels.shape)}')
    if not len(images):
        return images.clone()
    if not (0 <= images.min() and images.max() <= 1):
        raise InputError(f'expected images in [0, 1], got {images.min():g} to {images.max():g}; '
                         'put the normalization into the model')
    with torch.inference_mode(False):
        labels = labels.to(images.device, torch.long, copy=True)
    width = min(len(images), batch_size or ROWS.get(images.device.type, ROWS['cpu']))
    valid = torch.ones((), dtype=torch.bool, device=images.device).expand(len(images), 1, *images.shape[-2:])
    batch = Batch(images, valid, tuple(map(Sample, map(str, range(len(images))), images, labels)))
    attack = AutoAttack(ThreatModel(norm, float(epsilon)), version=version, width=width)
    classifier = _Plain(model, labels)
    return attack(cast('Predictor', classifier), batch, BatchRng(seed, range(len(images)), device=images.device))


class _Plain:
    """Adapter from a callable that returns logits to a classifier for one batch."""

    rough, name = False, 'model'

    def __init__(self, model: Callable[[Tensor], Tensor], labels: Tensor):
        self.model, self._labels = model, labels

    def logits(self, images: Tensor) -> Tensor:
        return self.model(images).float()

    def labels(self, batch: Batch) -> Tensor:
        return self._labels

    def predict(self, images: Tensor, batch: Batch, *, trace: bool = False) -> Outputs:
        return Outputs(self.logits(images))
