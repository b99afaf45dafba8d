"""TOG, DAG and DPatch on a detector that implements only the protocol: a linear score per corner of the image."""

import pytest
import torch

from pit_downstream.attacks import dpatch
from pit_downstream.attacks.base import build_attack
from pit_downstream.utils.protocols import Batch, Detections, Instances, Outputs, Sample
from pit_downstream.utils.rng import BatchRng
from pit_downstream.utils.spec import Spec

SIDE, CLASSES = 16, 3


class CornerDetector:
    """Four candidates per image, one per corner, with logits (3 classes) that are linear in its pixels."""

    name, loss_types, num_classes, device = 'corners', ('all', 'cls'), CLASSES, torch.device('cpu')

    def __init__(self):
        half = SIDE // 2
        self.weight = torch.randn(3 * half * half, CLASSES, generator=torch.Generator().manual_seed(0)) / 8
        corners = [(0, 0), (half, 0), (0, half), (half, half)]
        self.boxes = torch.tensor([[left, top, left + half, top + half] for left, top in corners]).float()

    def collate(self, samples):
        images = torch.stack([sample.image for sample in samples])
        return Batch(images, torch.ones(len(images), 1, SIDE, SIDE, dtype=torch.bool), tuple(samples))

    def compute(self, images):
        half = SIDE // 2
        patches = torch.stack([images[..., top:top + half, left:left + half].flatten(1)
                               for left, top, _, _ in self.boxes.int().tolist()], 1)
        return (patches - .5) @ self.weight

    def make_target_logits(self, batch):
        return lambda images: self.compute(images)[0]

    def detect_candidates(self, images, batch):
        scores, labels = self.compute(images).sigmoid().max(2)
        return [Detections(self.boxes, *pair) for pair in zip(labels, scores)]

    def detect(self, images, batch, *, min_score):
        return [Instances({'bbox': box, 'bbox_label': label, 'ignore_flag': 0} for box, label, score in zip(
            one.boxes.tolist(), one.labels.tolist(), one.scores.tolist()) if score >= min_score)
            for one in self.detect_candidates(images, batch)]

    def predict(self, images, batch, *, trace=False):
        return Outputs(self.detect(images, batch, min_score=.5))

    def loss(self, images, batch, loss_type='all', ground_truth=None):
        targets = torch.zeros(len(images), 4, CLASSES)
        for image, instances in enumerate(ground_truth or [sample.target for sample in batch.samples]):
            for instance in instances:
                targets[image, self.boxes.tolist().index(instance['bbox']), instance['bbox_label']] = 1
        entropy = torch.nn.functional.binary_cross_entropy_with_logits(
            self.compute(images), targets, reduction='none')
        return entropy.sum((1, 2))


@pytest.fixture
def detector():
    return CornerDetector()


@pytest.fixture
def batch(detector):
    images = torch.rand(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    return detector.collate([Sample(f'image{i}', image, Instances()) for i, image in enumerate(images)])


def attack(text, detector, batch):
    return build_attack(Spec.parse(text))(detector, batch, BatchRng(0, [sample.id for sample in batch.samples]))


def test_tog_vanishing_lowers_and_fabrication_raises_all_scores(detector, batch):
    clean, vanished, fabricated = (detector.compute(images).sigmoid().sum() for images in (
        batch.images, attack("tog(epsilon=8/255, mode='vanishing')", detector, batch),
        attack("tog(epsilon=8/255, mode='fabrication')", detector, batch)))
    assert vanished < clean < fabricated


@pytest.mark.parametrize('mode', ['mislabeling_ml', 'mislabeling_ll'])
def test_tog_mislabeling_raises_the_logits_of_its_labels(mode, detector, batch):
    """Each box has one candidate, of its label: the other classes have score 0, and the first of them is chosen."""
    images = attack(f"tog(epsilon=8/255, confidence=0.0, mode='{mode}')", detector, batch)
    before, after = detector.compute(batch.images), detector.compute(images)
    label = before.argmax(2, keepdim=True)
    wrong = (label == 0).long()  # the lowest index besides the label
    assert (after.gather(2, wrong) > before.gather(2, wrong)).all()
    assert (after.gather(2, label) < before.gather(2, label)).all()


def test_dag_lowers_labels_until_none_is_left(detector, batch):
    labels = detector.compute(batch.images).argmax(2)
    images = attack('dag(epsilon=1, steps=500)', detector, batch)
    assert not (detector.compute(images).argmax(2) == labels).any()
    bounded = attack('dag(epsilon=2/255, steps=20)', detector, batch)
    assert 0 < (bounded - batch.images).abs().max() <= 2 / 255 + 1e-6


def test_dpatch_raises_the_loss_more_than_noise(detector, batch, tmp_path):
    *_, patch = dpatch.train_patch(detector, [batch] * 10, share=.5, step=.1)
    path = dpatch.save_patch(patch, tmp_path)
    noise, trained = (detector.loss(attack(text, detector, batch), batch).sum() for text in (
        'dpatch(epsilon=1, share=0.5)', f"dpatch(epsilon=1, share=0.5, file='{path}')"))
    assert trained > noise
