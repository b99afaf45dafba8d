"""Distillation through a token (DeiT, Touvron et al. 2021, arXiv 2012.12877)."""

import torch
import torch.nn.functional as F
from mmengine.device import get_device
from torch import Tensor

from pit_downstream.evaluation.models import build_classifier
from pit_downstream.utils.errors import InputError

KINDS = ('hard', 'soft')


def compute_distillation_loss(student: Tensor, teacher: Tensor, *, kind: str, tau: float = 1.0) -> Tensor:
    """Compute the loss between the logits of the student's distillation head and the teacher's, both (B, K). A scalar.

    'hard' is the cross-entropy of the teacher's decision. 'soft' is KL(teacher || student) at temperature `tau`, times
    tau^2, divided by the B * K entries, as in facebookresearch/deit's losses.py. At K = 1000 it is small compared with
    the hard loss.
    """
    if kind == 'hard':
        return F.cross_entropy(student, teacher.argmax(1))
    divergence = F.kl_div((student / tau).log_softmax(1), (teacher / tau).log_softmax(1), reduction='sum',
                          log_target=True)
    return divergence * tau ** 2 / student.numel()


class Distillation:
    """Distillation from a teacher classifier.

    The teacher is neither trained nor saved with the student. A copy of the student has the same teacher.

    Args:
        teacher: A name as for --model in the evaluation tools.
        weights: As for --weights in the evaluation tools.
        alpha: Weight of the teacher's loss. 0.5 and tau 1 are facebookresearch/deit's defaults (main.py).
    """

    def __init__(self, *, teacher: str, kind: str, weights: str | None = None, alpha: float = 0.5, tau: float = 1.0):
        if kind not in KINDS:
            raise InputError(f'distillation.kind is one of {", ".join(KINDS)}, got {kind!r}')
        if not 0 <= alpha <= 1 or tau <= 0:
            raise InputError(f'distillation has alpha in [0, 1] and tau above 0, got {alpha} and {tau}')
        self.kind, self.alpha, self.tau = kind, alpha, tau
        self.teacher = build_classifier(teacher, weights=weights, device=get_device())

    def __deepcopy__(self, memo: dict) -> 'Distillation':
        return self

    def losses(self, logits: tuple[Tensor, Tensor], images: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Return the classification and distillation losses.

        `logits` are those of the two heads, (B, K) each. `images` are (B, 3, H, W) in [0, 1], `targets` distributions
        (B, K).
        """
        own, distilled = logits
        with torch.no_grad():
            taught = self.teacher.logits(images)
        if taught.shape != distilled.shape:
            raise InputError(f'expected a teacher of {distilled.shape[1]} classes, got {self.teacher.name} with '
                             f'{taught.shape[1]}; give another --cfg-options model.distillation.teacher')
        loss = compute_distillation_loss(distilled.float(), taught, kind=self.kind, tau=self.tau)
        return {'loss_class': (1 - self.alpha) * F.cross_entropy(own, targets), 'loss_distilled': self.alpha * loss}
