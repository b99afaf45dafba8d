"""The eight PiT classifiers, registered with timm under the names of the official repository."""

from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn

from pit_downstream.utils.checkpoints import unwrap
from pit_downstream.backbones.pit import PitTrunk
from pit_downstream.backbones.weights import at_size, strip_prefix, timm_to_official


class PitClassifier(PitTrunk):
    """PiT as an ImageNet classifier: images (B, 3, H, W), normalized -> logits (B, num_classes).

    The distilled models return the pair (class logits, distillation logits) in training and their mean in evaluation.
    Any size from 32 pixels is supported, while timm's PiT supports only 224.
    """

    def __init__(self, arch: str, *, num_classes: int = 1000, distilled: bool = False, global_pool: str = 'token',
                 **kwargs):
        super().__init__(arch, 3, distilled=distilled, **kwargs)
        if global_pool != 'token':
            raise ValueError(f"PiT pools by its class token: global_pool is 'token', got {global_pool!r}")
        self.num_features = self.head_hidden_size = self.arch.widths[-1]
        self.distilled = distilled
        self.norm = nn.LayerNorm(self.num_features, eps=1e-6)
        self.reset_classifier(num_classes)

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the head by one for `num_classes` classes, or by none for 0. `global_pool`: for timm, unused."""
        self.num_classes = num_classes
        self.head = self._new_head()
        if self.distilled:
            self.head_dist = self._new_head()

    def get_classifier(self) -> nn.Module | tuple[nn.Module, nn.Module]:
        return (self.head, self.head_dist) if self.distilled else self.head

    def no_weight_decay(self) -> set[str]:
        return {'pos_embed', 'cls_token'}

    def forward_features(self, images: Tensor) -> Tensor:
        """Return the normalized class tokens (B, 1 or 2, D). images: (B, 3, H, W)."""
        return self.norm(self.run_stages(images)[-1][1])

    def forward_head(self, cls: Tensor, pre_logits: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """Return logits (B, num_classes), or features (B, D) when `pre_logits`. cls: (B, 1 or 2, D)."""
        if pre_logits:
            return cls.mean(1)
        if not self.distilled:
            return self.head(cls[:, 0])
        logits = self.head(cls[:, 0]), self.head_dist(cls[:, 1])
        return logits if self.training else (logits[0] + logits[1]) / 2

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        return self.forward_head(self.forward_features(images))

    def _new_head(self) -> nn.Module:
        return nn.Linear(self.num_features, self.num_classes) if self.num_classes else nn.Identity()


def _cfg(timm_name: str) -> dict:
    """Return timm's pretrained config. The weights published by timm are the official ones."""
    return {'hf_hub_id': f'timm/{timm_name}', 'num_classes': 1000, 'input_size': (3, 224, 224), 'pool_size': None,
            'crop_pct': 0.9, 'interpolation': 'bicubic', 'mean': IMAGENET_DEFAULT_MEAN, 'std': IMAGENET_DEFAULT_STD,
            'first_conv': 'patch_embed.conv', 'license': 'apache-2.0'}


def _classifier_names(arch: str) -> dict[str, dict]:
    heads = ('head', 'head_dist')
    return {f'pit_{arch}.in1k': {**_cfg(f'pit_{arch}_224.in1k'), 'classifier': 'head'},
            f'pit_{arch}_distilled.in1k': {**_cfg(f'pit_{arch}_distilled_224.in1k'), 'classifier': heads}}


default_cfgs = generate_default_cfgs({
    name: cfg for arch in ('ti', 'xs', 's', 'b') for name, cfg in _classifier_names(arch).items()})


def _to_official(checkpoint: dict, model: PitClassifier) -> dict[str, Tensor]:
    return at_size(timm_to_official(strip_prefix(unwrap(checkpoint), 'patch_embed.conv.weight')), model.pos_embed)


def _create(arch: str, pretrained: bool, **kwargs) -> PitClassifier:
    variant = f'pit_{arch}_distilled' if kwargs.get('distilled') else f'pit_{arch}'
    return build_model_with_cfg(PitClassifier, variant, pretrained, arch=arch,
                                pretrained_filter_fn=_to_official, **kwargs)


@register_model
def pit_ti(pretrained: bool = False, **kwargs) -> PitClassifier:
    return _create('ti', pretrained, **kwargs)


@register_model
def pit_xs(pretrained: bool = False, **kwargs) -> PitClassifier:
    return _create('xs', pretrained, **kwargs)


@register_model
def pit_s(pretrained: bool = False, **kwargs) -> PitClassifier:
    return _create('s', pretrained, **kwargs)


@register_model
def pit_b(pretrained: bool = False, **kwargs) -> PitClassifier:
    return _create('b', pretrained, **kwargs)


@register_model
def pit_ti_distilled(pretrained: bool = False, **kwargs) -> PitClassifier:
    return _create('ti', pretrained, distilled=True, **kwargs)


@register_model
def pit_xs_distilled(pretrained: bool = False, **kwargs) -> PitClassifier:
    return _create('xs', pretrained, distilled=True, **kwargs)


@register_model
def pit_s_distilled(pretrained: bool = False, **kwargs) -> PitClassifier:
    return _create('s', pretrained, distilled=True, **kwargs)


@register_model
def pit_b_distilled(pretrained: bool = False, **kwargs) -> PitClassifier:
    return _create('b', pretrained, distilled=True, **kwargs)
