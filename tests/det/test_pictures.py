"""Painted boxes lie where they should, on copies of the right size."""

import numpy as np
import torch

import pit_downstream.det  # noqa: F401
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from PIL import Image
from pit_downstream.det.pictures import PictureHook, paint

GREY = torch.full((3, 20, 30), 128, dtype=torch.uint8)


def instances(**more):
    return InstanceData(bboxes=torch.tensor([[12., 4., 25., 16.]]), labels=torch.tensor([0]), **more)


def test_box_edges_are_painted_and_the_image_is_left_alone():
    picture = paint(GREY, instances(), ('cell',), scale=3)
    assert picture.shape == (3, 60, 90) and (GREY == 128).all()
    changed = (picture != 128).any(0)
    assert changed[40, 36] and changed[40, 75] and changed[48, 50]  # left, right and lower edge
    assert not changed[30, 20] and not changed[40, 60] and not changed[55:].any()


def test_nothing_found_paints_nothing():
    none = InstanceData(bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long), scores=torch.zeros(0))
    assert torch.equal(paint(GREY, none, ('cell',)), GREY)


def test_masks_are_tinted():
    masks = torch.zeros(1, 20, 30, dtype=torch.bool)
    masks[0, 8:12, 16:20] = True
    picture = paint(GREY, instances(masks=masks, scores=torch.tensor([0.9])), ('cell',), scale=2)
    changed = (picture != 128).any(0)
    assert changed[16:24, 32:40].all() and not changed[26, 36]


def test_hook_writes_truth_beside_what_was_found(tmp_path):
    Image.fromarray(np.full((20, 30, 3), 128, np.uint8)).save(tmp_path / 'a.png')
    unsure = instances(scores=torch.tensor([0.4]))
    sample = DetDataSample(gt_instances=instances(), pred_instances=unsure,
                           metainfo=dict(img_path=str(tmp_path / 'a.png')))
    runner = type('Runner', (), dict(visualizer=type('V', (), dict(dataset_meta=dict(classes=('cell',))))))
    PictureHook(str(tmp_path / 'out'), least=60).after_test_iter(runner, 0, outputs=[sample])
    picture = np.asarray(Image.open(tmp_path / 'out' / 'a.png'))
    assert picture.shape == (40, 60 + 8 + 60, 3)
    assert (picture[:, :60] != 128).any() and (picture[:, 68:] == 128).all()
