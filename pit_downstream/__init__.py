"""PiT and DeepViT backbones for mmdet, and measuring how robust they are.

Importing this package imports nothing else: `pit_downstream.backbones` registers the models with timm,
`pit_downstream.det` with mmdet.
"""

__version__ = '0.2.0'
