"""Registration of the backbones in mmdet: `backbone=dict(type='PiT', arch='s')`."""

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mmdet.registry import MODELS
from mmengine.logging import print_log
from mmengine.model import BaseModule
from mmengine.runner import CheckpointLoader
from torch import Tensor

from pit_downstream import backbones
from pit_downstream.backbones.multi_scale import DetectionBackbone, Maps, Size
from pit_downstream.det.preprocess import get_image_sizes

if TYPE_CHECKING:
    class _Base(DetectionBackbone, BaseModule):
        """Classes after the mixin in the bases. BaseModule has no annotations."""

        is_init: bool
else:
    _Base = object


class _MmdetBackbone(_Base):
    """Mixin that adds `init_cfg` of mmengine's BaseModule, and image sizes of the data preprocessor.

    It is placed before a backbone, and BaseModule after it: every __init__ in between calls the next without arguments.
    """

    def __init__(self, *args: Any, init_cfg: dict | list[dict] | None = None, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.init_cfg = copy.deepcopy(init_cfg)

    def forward(self, images: Tensor, sizes: Sequence[Size] | None = None) -> Maps:
        """Run DetectionBackbone.forward with, by default, the image sizes of the data preprocessor."""
        return super().forward(images, get_image_sizes(images) if sizes is None else sizes)

    def init_weights(self) -> None:
        """Load `init_cfg`'s whole checkpoint, so that averaged weights take precedence over raw ones."""
        cfg = self.init_cfg
        if isinstance(cfg, dict) and cfg.get('type') == 'Pretrained' and not self.is_init:
            self.load_state_dict(CheckpointLoader.load_checkpoint(cfg['checkpoint'], map_location='cpu'))
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
