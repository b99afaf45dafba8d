"""Image classifier for mmengine's Runner: a network from timm's registry, with its losses."""

from collections.abc import Sequence
from typing import Any

import timm
import torch
import torch.nn.functional as F
from mmengine.model import BaseModel
from mmengine.registry import MODELS
from torch import Tensor

from pit_downstream import backbones  # noqa: F401  registers our networks with timm
from pit_downstream.attention.trace import Trace, trace_attention
from pit_downstream.training.distillation import Distillation
from pit_downstream.utils.errors import InputError


def compute_cosine_penalty(maps: Sequence[Tensor]) -> Tensor:
    """Compute the mean cosine similarity of successive attention maps along the heads, a scalar in [-1, 1].

    `maps` are (B, heads, N, N) of successive blocks. Each (query, key) pair has a vector with one value per head, and
    these vectors are compared. The similarity plotted in the paper compares the columns of each head instead. Source:
    zhoudaquan/dvit_repo, timm/loss/cross_entropy.py, SoftTargetCrossEntropyCosReg.
    """
    pairs = zip(maps[:-1], maps[1:], strict=True)
    return torch.stack([F.cosine_similarity(one, following, dim=1).mean() for one, following in pairs]).mean()


@MODELS.register_module()
class ImageClassifier(BaseModel):
    """Image classifier with optional distillation and regularization.

    Args:
        network: `name` and other arguments of timm.create_model.
        distillation: Arguments of `Distillation`, for networks with two heads.
        regularizer: dict(pairs=, weight=) of DeepViT's penalty on the similarity of attention maps, None for no
            penalty. It compares the first `pairs` successive pairs of maps that multiply the values. `weight` scales it
            in the loss.
    """

    def __init__(self, network: dict, *, distillation: dict | None = None, regularizer: dict | None = None,
                 data_preprocessor: dict | None = None):
        super().__init__(data_preprocessor)
        name, options = network['name'], {key: value for key, value in network.items() if key != 'name'}
        self.network = timm.create_model(name, **options)
        two_heads = getattr(self.network, 'distilled', False)
        if two_heads != bool(distillation):
            raise InputError(f'expected model.distillation for a network with a head for it and for no other, got '
                             f'{distillation} and {name}; {ADVICE[two_heads]}')
        self.distillation = Distillation(**distillation) if distillation else None
        self.regularizer = regularizer
        if regularizer:
            _require_regularizer(regularizer, self.network, name)

    def forward(self, images: Tensor, targets: Tensor, mode: str = 'tensor'):
        """Return a dict of losses for mode 'loss', (logits, label) per image for 'predict', logits otherwise.

        `images` are (B, 3, H, W), normalized.
        """
        if mode == 'loss':
            return self.losses(images, targets)
        logits = self.network(images)
        return list(zip(logits, targets, strict=True)) if mode == 'predict' else logits

    def losses(self, images: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Return the terms of the loss. `targets` are distributions (B, K)."""
        penalty = {}
        if self.regularizer:
            with trace_attention(self.network) as trace:
                logits = self.network(images)
            maps = self._get_maps(trace, self.regularizer['pairs'])
            penalty['loss_likeness'] = self.regularizer['weight'] * compute_cosine_penalty(maps)
        else:
            logits = self.network(images)
        if self.distillation:
            shown = self.data_preprocessor.convert_to_unit_range(images)
            return self.distillation.losses(logits, shown, targets) | penalty
        return {'loss_class': F.cross_entropy(logits, targets)} | penalty

    def _get_maps(self, trace: Trace, pairs: int) -> list[Tensor]:
        """Return the maps that multiply the values in the first `pairs` + 1 blocks."""
        places = list(trace.tokens)[:pairs + 1]
        mixed = trace.maps.get('reattention', {})
        return [mixed.get(place, trace.maps['softmax'][place]) for place in places]


def _require_regularizer(regularizer: dict, network: Any, name: str) -> None:
    """Raise InputError unless `regularizer` has pairs and weight, and the first stage has enough attention maps."""
    if set(regularizer) != {'pairs', 'weight'}:
        raise InputError(f'expected model.regularizer with pairs and weight, got {", ".join(sorted(regularizer))}')
    with trace_attention(network):
        pass  # raises for a network without attention
    stage = network.transformers[0] if hasattr(network, 'transformers') else network
    if not 1 <= regularizer['pairs'] < len(stage.blocks):
        raise InputError(f'expected model.regularizer.pairs in 1..{len(stage.blocks) - 1}, for the blocks of the first '
                         f'size in {name}, got {regularizer["pairs"]}')


ADVICE = {True: 'name a teacher with --cfg-options model.distillation.teacher=NAME model.distillation.kind=hard',
          False: "take the '_distilled' network, or leave model.distillation out"}
