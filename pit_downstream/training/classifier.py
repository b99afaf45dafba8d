"""A classifier that mmengine's Runner can train: the network of timm's registry, and what it is to minimise."""

from collections.abc import Sequence

import timm
import torch
import torch.nn.functional as F
from mmengine.model import BaseModel
from mmengine.registry import MODELS
from torch import Tensor, nn

from pit_downstream import backbones  # noqa: F401  registers our networks with timm
from pit_downstream.attention.trace import Trace, trace_attention
from pit_downstream.training.distillation import Distillation


def cosine_penalty(maps: Sequence[Tensor]) -> Tensor:
    """Mean cosine similarity of each map with the next one, along the heads: a scalar in [-1, 1].

    maps: (B, heads, N, N) of successive blocks. Every query and key has a vector of one number a head; these are
    compared, where the similarity that the paper plots compares the columns of each head.
    Source: zhoudaquan/dvit_repo, timm/loss/cross_entropy.py, SoftTargetCrossEntropyCosReg.
    """
    pairs = zip(maps[:-1], maps[1:], strict=True)
    return torch.stack([F.cosine_similarity(one, following, dim=1).mean() for one, following in pairs]).mean()


@MODELS.register_module()
class ImageClassifier(BaseModel):
    """network: `name` and other arguments of timm.create_model.

    distillation: arguments of `Distillation`, for networks with two heads.
    regulariser: dict(pairs=, weight=), DeepViT's penalty on the likeness of the first `pairs` successive pairs of maps,
    of those that multiply the values: its weight in the loss, and None for no penalty.
    """

    def __init__(self, network: dict, *, distillation: dict | None = None, regulariser: dict | None = None,
                 data_preprocessor: dict | None = None):
        super().__init__(data_preprocessor)
        name, options = network['name'], {key: value for key, value in network.items() if key != 'name'}
        self.network = timm.create_model(name, **options)
        two_heads = getattr(self.network, 'distilled', False)
        if two_heads != bool(distillation):
            raise ValueError(f'expected model.distillation for a network with a head for it and for no other, got '
                             f'{distillation} and {name}; {ADVICE[two_heads]}')
        self.distillation = Distillation(**distillation) if distillation else None
        self.regulariser = regulariser
        if regulariser:
            _require_regulariser(regulariser, self.network, name)

    def forward(self, images: Tensor, targets: Tensor, mode: str = 'tensor'):
        """images: (B, 3, H, W), normalized. mode 'loss': a dict; 'predict': (logits, label) of each; else logits."""
        if mode == 'loss':
            return self.losses(images, targets)
        logits = self.network(images)
        return list(zip(logits, targets, strict=True)) if mode == 'predict' else logits

    def losses(self, images: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """What is added up to the loss. targets: distributions (B, K)."""
        penalty = {}
        if self.regulariser:
            with trace_attention(self.network) as trace:
                logits = self.network(images)
            penalty['loss_likeness'] = self.regulariser['weight'] * cosine_penalty(self._maps(trace))
        else:
            logits = self.network(images)
        if self.distillation:
            shown = self.data_preprocessor.in_unit_range(images)
            return self.distillation.losses(logits, shown, targets) | penalty
        return {'loss_class': F.cross_entropy(logits, targets)} | penalty

    def _maps(self, trace: Trace) -> list[Tensor]:
        """Of the first blocks, what multiplies their values."""
        places = list(trace.tokens)[:self.regulariser['pairs'] + 1]
        mixed = trace.maps.get('reattention', {})
        return [mixed.get(place, trace.maps['softmax'][place]) for place in places]


def _require_regulariser(regulariser: dict, network: nn.Module, name: str) -> None:
    """Raise ValueError unless it says pairs and weight, and the network's first maps of one size are enough."""
    if set(regulariser) != {'pairs', 'weight'}:
        raise ValueError(f'expected model.regulariser with pairs and weight, got {", ".join(sorted(regulariser))}')
    with trace_attention(network):
        pass  # which a network without attention refuses
    stage = network.transformers[0] if hasattr(network, 'transformers') else network
    if not 1 <= regulariser['pairs'] < len(stage.blocks):
        raise ValueError(f'expected model.regulariser.pairs in 1..{len(stage.blocks) - 1}, for the blocks of the first '
                         f'size in {name}, got {regulariser["pairs"]}')


ADVICE = {True: 'name a teacher with --cfg-options model.distillation.teacher=NAME model.distillation.kind=hard',
          False: "take the '_distilled' network, or leave model.distillation out"}
