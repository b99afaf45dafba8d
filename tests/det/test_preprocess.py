"""The preprocessor hands the sizes of images to the backbone of any detector."""

import pytest
import torch

import pit_downstream.det  # noqa: F401
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import ConfigDict
from mmengine.logging import MessageHub
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData
from pit_downstream.backbones import PiT
from pit_downstream.det.preprocess import get_image_sizes
from tests.det import tiny
from tests.tolerances import assert_near

SIZES = [(60, 90), (97, 33)]


def build(type='PitDataPreprocessor', **options):
    init_default_scope('mmdet')
    return MODELS.build(dict(type=type, mean=[100.] * 3, std=[50.] * 3, bgr_to_rgb=True, **options))


def batch(sizes=SIZES):
    generator = torch.Generator().manual_seed(0)
    truth = InstanceData(bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long))
    return dict(inputs=[torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=generator) for size in sizes],
                data_samples=[DetDataSample(metainfo=dict(img_shape=size), gt_instances=truth) for size in sizes])


@pytest.mark.parametrize('divisor, sizes, full', [
    (1, [(60, 90), (97, 33)], (97, 90)), (32, [(64, 96), (128, 64)], (128, 96))])
def test_sizes_are_those_of_each_image_alone(divisor, sizes, full):
    preprocess, stock = build(pad_size_divisor=divisor), build('DetDataPreprocessor', pad_size_divisor=divisor)
    images = preprocess(batch())['inputs']
    assert images.shape[-2:] == full and list(get_image_sizes(images)) == sizes
    assert torch.equal(images, stock(batch())['inputs'])
    alone = preprocess({key: value[:1] for key, value in batch().items()})['inputs']
    assert alone.shape[-2:] == sizes[0] and list(get_image_sizes(alone)) == sizes[:1]
    assert list(get_image_sizes(preprocess(dict(inputs=batch()['inputs'], data_samples=None))['inputs'])) == sizes


def test_sizes_follow_what_resizes_the_whole_batch():
    """mmdet rounds down what it says of the images then; the largest still fills the batch."""
    preprocess = build(pad_size_divisor=1, batch_augments=[
        dict(type='BatchSyncRandomResize', random_size_range=(64, 64), size_divisor=32)])
    preprocess.batch_augments[0]._input_size = (64, 64)
    MessageHub.get_current_instance().update_info('iter', 0)  # as a training loop does
    images = preprocess(batch(), training=True)['inputs']
    assert images.shape[-2:] == (64, 64)
    assert list(get_image_sizes(images)) == [(int(60 * 64 / 97), 64), (64, int(33 * 64 / 90))]


def test_they_reach_the_backbone_of_a_detector():
    """Through mmdet's own test_step."""
    init_default_scope('mmdet')
    torch.manual_seed(0)
    parts = tiny.retinanet()
    parts.update(backbone=dict(type='PiT', arch='ti', out_indices=(1, 2)), data_preprocessor=dict(
        type='PitDataPreprocessor', pad_size_divisor=32), neck=parts['neck'] | dict(in_channels=[128, 256]))
    detector, maps = MODELS.build(ConfigDict(parts)).eval(), []
    detector.backbone.register_forward_hook(lambda backbone, args, out: maps.append(out))
    data = batch()
    for one in data['data_samples']:
        one.set_metainfo(dict(scale_factor=(1., 1.), ori_shape=one.img_shape))
    with torch.no_grad():
        detector.test_step(data)
        detector.test_step({key: value[:1] for key, value in data.items()})
    together, alone = maps
    assert isinstance(detector.backbone, PiT)
    for mine, one in zip(together, alone, strict=True):
        assert_near(mine[:1, :, :one.shape[2], :one.shape[3]], one, 'network')
