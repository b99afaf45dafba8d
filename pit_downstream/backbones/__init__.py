"""Backbones. Importing this package registers the classifiers with timm: `timm.create_model('pit_s')`."""

from pit_downstream.backbones.deepvit import (
    DeepViT, DeepVitClassifier, deepvit_16, deepvit_24, deepvit_32, deepvit_L, deepvit_l, deepvit_L_384, deepvit_l_384,
    deepvit_patch16_224_re_attn_16b, deepvit_patch16_224_re_attn_24b, deepvit_patch16_224_re_attn_32b, deepvit_S,
    deepvit_s, vit_16, vit_24, vit_32, vit_s,
)
from pit_downstream.backbones.pit import (
    PiT, PitClassifier, pit_b, pit_b_distilled, pit_s, pit_s_distilled, pit_ti, pit_ti_distilled, pit_xs,
    pit_xs_distilled,
)

__all__ = ['DeepViT', 'DeepVitClassifier', 'PiT', 'PitClassifier', 'deepvit_16', 'deepvit_24', 'deepvit_32',
           'deepvit_L', 'deepvit_L_384', 'deepvit_S', 'deepvit_l', 'deepvit_l_384', 'deepvit_patch16_224_re_attn_16b',
           'deepvit_patch16_224_re_attn_24b', 'deepvit_patch16_224_re_attn_32b', 'deepvit_s', 'pit_b',
           'pit_b_distilled', 'pit_s', 'pit_s_distilled', 'pit_ti', 'pit_ti_distilled', 'pit_xs', 'pit_xs_distilled',
           'vit_16', 'vit_24', 'vit_32', 'vit_s']
