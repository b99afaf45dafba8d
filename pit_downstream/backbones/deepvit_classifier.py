"""DeepViT, ViT-16/24/32 and DeiT-S as classifiers, registered with timm under official and short names."""

from collections.abc import Callable

from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, IMAGENET_INCEPTION_MEAN, IMAGENET_INCEPTION_STD
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn

from pit_downstream.utils.checkpoints import unwrap
from pit_downstream.backbones.deepvit import ARCHS, DeepVitTrunk
from pit_downstream.backbones.weights import at_size, strip_prefix


class DeepVitClassifier(DeepVitTrunk):
    """DeepViT as an ImageNet classifier: images (B, 3, H, W) of any size, normalized -> logits (B, num_classes)."""

    def __init__(self, arch: str, *, num_classes: int = 1000, global_pool: str = 'token', **kwargs):
        super().__init__(arch, **kwargs)
        if global_pool != 'token':
            raise ValueError(f"DeepViT pools by its class token: global_pool is 'token', got {global_pool!r}")
        self.num_features = self.head_hidden_size = self.arch.width
        self.norm = nn.LayerNorm(self.num_features, eps=1e-6)
        self.reset_classifier(num_classes)

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the head by one for `num_classes` classes, or by none for 0. `global_pool`: for timm, unused."""
        self.num_classes = num_classes
        self.head = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()
        if num_classes:
            nn.init.trunc_normal_(self.head.weight, std=0.02)
            nn.init.zeros_(self.head.bias)

    def get_classifier(self) -> nn.Module:
        return self.head

    def no_weight_decay(self) -> set[str]:
        return {'pos_embed', 'cls_token'}

    def forward_features(self, images: Tensor) -> Tensor:
        """Return the normalized tokens (B, 1 + h w, D), class token first. images: (B, 3, H, W)."""
        return self.norm(self.run_blocks(images, keep=(len(self.blocks) - 1,))[0][0])

    def forward_head(self, tokens: Tensor, pre_logits: bool = False) -> Tensor:
        """Return logits (B, num_classes), or features (B, D) when `pre_logits`. tokens: (B, N, D)."""
        return tokens[:, 0] if pre_logits else self.head(tokens[:, 0])

    def forward(self, images: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(images))


def _cfg(arch: str) -> dict:
    """Return timm's pretrained config. DeepViT paper's models normalize to [-1, 1], DeiT-S by ImageNet statistics."""
    side = ARCHS[arch].img_size
    cfg = {'num_classes': 1000, 'input_size': (3, side, side), 'pool_size': None, 'crop_pct': 0.9,
           'interpolation': 'bicubic', 'mean': IMAGENET_INCEPTION_MEAN, 'std': IMAGENET_INCEPTION_STD,
           'first_conv': 'patch_embed.conv1' if ARCHS[arch].conv_stem else 'patch_embed.proj', 'classifier': 'head'}
    if arch == 'vit_s':
        cfg |= {'mean': IMAGENET_DEFAULT_MEAN, 'std': IMAGENET_DEFAULT_STD, 'license': 'apache-2.0',
                'hf_hub_id': 'timm/deit_small_patch16_224.fb_in1k'}
    return cfg


_ARCH_OF = {  # every registered name
    'deepvit_patch16_224_re_attn_16b': '16', 'deepvit_patch16_224_re_attn_24b': '24',
    'deepvit_patch16_224_re_attn_32b': '32', 'deepvit_S': 's', 'deepvit_L': 'l', 'deepvit_L_384': 'l_384',
    **{f'deepvit_{arch}': arch for arch in ('16', '24', '32', 's', 'l', 'l_384')},
    **{arch: arch for arch in ('vit_16', 'vit_24', 'vit_32', 'vit_s')}}

default_cfgs = generate_default_cfgs({name: _cfg(arch) for name, arch in _ARCH_OF.items()})


def _to_official(checkpoint: dict, model: DeepVitClassifier) -> dict[str, Tensor]:
    return at_size(strip_prefix(unwrap(checkpoint), 'patch_embed.proj.weight'), model.pos_embed)


def _entry(name: str) -> Callable[..., DeepVitClassifier]:
    """Return the timm entry point of one model."""
    def create(pretrained: bool = False, **kwargs) -> DeepVitClassifier:
        return build_model_with_cfg(DeepVitClassifier, name, pretrained, arch=_ARCH_OF[name],
                                    pretrained_filter_fn=_to_official, **kwargs)
    create.__name__ = create.__qualname__ = name
    return register_model(create)


deepvit_patch16_224_re_attn_16b = _entry('deepvit_patch16_224_re_attn_16b')
deepvit_patch16_224_re_attn_24b = _entry('deepvit_patch16_224_re_attn_24b')
deepvit_patch16_224_re_attn_32b = _entry('deepvit_patch16_224_re_attn_32b')
deepvit_S = _entry('deepvit_S')
deepvit_L = _entry('deepvit_L')
deepvit_L_384 = _entry('deepvit_L_384')
deepvit_16 = _entry('deepvit_16')
deepvit_24 = _entry('deepvit_24')
deepvit_32 = _entry('deepvit_32')
deepvit_s = _entry('deepvit_s')
deepvit_l = _entry('deepvit_l')
deepvit_l_384 = _entry('deepvit_l_384')
vit_16 = _entry('vit_16')
vit_24 = _entry('vit_24')
vit_32 = _entry('vit_32')
vit_s = _entry('vit_s')
