"""Registration of the backbones in mmdet: `backbone=dict(type='PiT', arch='s')`."""

import copy
from typing import Any

from mmdet.registry import MODELS
from mmengine.logging import print_log
from mmengine.model import BaseModule
from mmengine.runner import CheckpointLoader
from torch import Tensor

from pit_downstream import backbones
from pit_downstream.det.preprocess import get_image_sizes


class _MmdetBackbone:
    """Mixin that adds `init_cfg` of mmengine's BaseModule, and image sizes of the data preprocessor.

    It is placed before a backbone, and BaseModule after it: every __init__ in between calls the next without arguments.
    """

    def __init__(self, *args: Any, init_cfg: dict | list[dict] | None = None, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.init_cfg = copy.deepcopy(init_cfg)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return a map (B, C_i, h_i, w_i) for each of `out_channels`. images: (B, 3, H, W), normalized."""
        return super().forward(images, get_image_sizes(images))

    def init_weights(self) -> None:
        """Load `init_cfg`'s whole checkpoint, so that averaged weights take precedence over raw ones."""
        pretrained = isinstance(self.init_cfg, dict) and self.init_cfg.get('type') == 'Pretrained'
        if pretrained and not self.is_init:
            self.load_state_dict(CheckpointLoader.load_checkpoint(self.init_cfg['checkpoint'], map_location='cpu'))
            self.is_init = True
        else:
            super().init_weights()

    def _log_report(self, text: str) -> None:
        print_log(text, logger='current')


@MODELS.register_module()
class PiT(_MmdetBackbone, backbones.PiT, BaseModule):
    __doc__ = backbones.PiT.__doc__


@MODELS.register_module()
class DeepViT(_MmdetBackbone, backbones.DeepViT, BaseModule):
    __doc__ = backbones.DeepViT.__doc__
