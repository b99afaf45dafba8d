"""Registration of our backbones in mmdet: `backbone=dict(type='PiT', arch='s')`."""

from mmdet.registry import MODELS

from pit_downstream.backbones import DeepViT, PiT

for backbone in (PiT, DeepViT):
    MODELS.register_module(module=backbone)
