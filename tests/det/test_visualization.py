"""Painted boxes lie where they should, on copies of the right size."""

import pytest
import torch

import pit_downstream.det  # noqa: F401
from mmengine.structures import InstanceData
from pit_downstream.det.visualization import draw_objects

GREY = torch.full((3, 20, 30), 128, dtype=torch.uint8)


def instances(**more):
    return InstanceData(bboxes=torch.tensor([[12., 4., 25., 16.]]), labels=torch.tensor([0]), **more)


def test_box_edges_are_painted_and_the_image_is_left_alone():
    picture = draw_objects(GREY, instances(), ('cell',), scale=3)
    assert picture.shape == (3, 60, 90) and (GREY == 128).all()
    changed = (picture != 128).any(0)
    assert changed[40, 36] and changed[40, 75] and changed[48, 50]  # left, right and lower edge
    assert not changed[30, 20] and not changed[40, 60] and not changed[55:].any() and not changed[:, 80:].any()


def test_nothing_found_paints_nothing():
    none = InstanceData(bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long), scores=torch.zeros(0))
    assert torch.equal(draw_objects(GREY, none, ('cell',)), GREY)


def test_masks_are_tinted():
    masks = torch.zeros(1, 20, 30, dtype=torch.bool)
    masks[0, 8:12, 16:20] = True
    picture = draw_objects(GREY, instances(masks=masks, scores=torch.tensor([0.9])), ('cell',), scale=2)
    changed = (picture != 128).any(0)
    assert changed[16:24, 32:40].all() and not changed[26, 36]


def test_lines_and_text_grow_with_the_image():
    """Of a box in 600 and in 3000 pixels: the painted share of the image is alike."""
    shares = []
    for side in (600, 3000):
        found = InstanceData(bboxes=torch.tensor([[.2, .2, .8, .8]]) * side, labels=torch.tensor([0]),
                             scores=torch.tensor([.9]))
        painted = draw_objects(torch.full((3, side, side), 128, dtype=torch.uint8), found, ('cell',))
        shares.append((painted != 128).any(0).float().mean().item())
    assert shares[1] == pytest.approx(shares[0], rel=.2)


def test_a_label_at_the_edge_stays_in_the_image():
    found = InstanceData(bboxes=torch.tensor([[380., 0., 400., 20.]]), labels=torch.tensor([0]))
    painted = draw_objects(torch.full((3, 200, 400), 128, dtype=torch.uint8), found, ('a long name of a class',))
    assert (painted[:, :16, 300:] != 128).any(0).float().mean() > .8
