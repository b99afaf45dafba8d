"""A detector that knows the objects of tests/det/scenes.py: it returns them whatever the image shows."""

import torch
from mmdet.registry import MODELS
from mmengine.model import BaseModel
from mmengine.structures import InstanceData
from tests.det import scenes


@MODELS.register_module()
class Oracle(BaseModel):
    """Label k is the k-th of `scenes.CLASSES`. num_classes: of its one weight, which changes nothing."""

    def __init__(self, num_classes=2, data_preprocessor=None):
        super().__init__(data_preprocessor or dict(type='DetDataPreprocessor', mean=[0] * 3, std=[1] * 3))
        self.bbox_head = torch.nn.Linear(1, num_classes)

    def forward(self, inputs, data_samples=None, mode='tensor'):
        if mode == 'loss':
            return {'loss': self.bbox_head.weight.square().sum()}
        for sample in data_samples:
            mine = [one for one in [*scenes.OBJECTS, scenes.CROWD] if one[0] == sample.img_id]
            sample.pred_instances = InstanceData(
                bboxes=torch.tensor([[left, top, left + wide, top + high] for _, _, left, top, wide, high in mine],
                                    dtype=torch.float32).reshape(-1, 4),
                labels=torch.tensor([scenes.CLASSES.index(one[1]) for one in mine], dtype=torch.int64),
                scores=torch.linspace(.9, .8, len(mine)))
        return data_samples
