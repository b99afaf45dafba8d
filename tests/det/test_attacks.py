"""Attacks on detectors: inside the ball and off the padding, each towards its own aim, further than noise."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import pit_downstream as pit
import pit_downstream.det  # noqa: F401
from pit_downstream.attacks import dpatch
from pit_downstream.attacks.base import build_attack
from pit_downstream.attacks.dag import MIN_SCORE
from pit_downstream.attacks.tog import MODES, replace_labels
from pit_downstream.benchmarks.adversarial import group_curves
from pit_downstream.results.condition import CLEAN, Condition
from pit_downstream.utils.registry import ATTACKS
from pit_downstream.utils.spec import Spec
from pit_downstream.det.annotations import to_instances
from pit_downstream.det.candidates import disable_score_thresholds
from pit_downstream.det.full_resolution import OriginalSizePredictor
from pit_downstream.det.visualization import format_title, draw_panels
from pit_downstream.evaluation.data_loading import draw_batches
from pit_downstream.utils.protocols import Detections, Instances
from pit_downstream.utils.rng import BatchRng
from tests.det import tiny

EPSILON = 8 / 255
SPECS = ["pgd(epsilon=8/255, loss='cls', steps=2)", "pgd(epsilon=1, loss='box', norm='L2', steps=2)",
         'dag(epsilon=8/255, steps=2)',
         *(f"tog(confidence=0.0, epsilon=8/255, mode='{mode}', steps=2)" for mode in MODES)]


def batch_of(predictor, samples, *places):
    return predictor.collate([samples[place] for place in places or range(len(samples))])


def attacked(text, predictor, batch, seed=0):
    streams = BatchRng(seed, [sample.id for sample in batch.samples])
    return build_attack(Spec.parse(text))(predictor, batch, streams)


def test_attacks_on_detectors_report_it():
    for name in ('tog', 'dag', 'dpatch'):
        metadata = ATTACKS.get_entry(name).metadata
        assert metadata['of'] == 'detectors' and 'arXiv' in metadata['source']


@pytest.mark.parametrize('family, text', [
    *(('retinanet', text) for text in SPECS),
    ('mask_rcnn', 'dag(epsilon=8/255, steps=2)'), ('detr', 'dag(epsilon=8/255, steps=2)'),
    ('mask_rcnn', "tog(confidence=0.3, epsilon=8/255, mode='untargeted', steps=2)"),
    ('detr', "tog(confidence=0.0, epsilon=8/255, mode='mislabeling_ml', steps=2)")])
def test_the_contract(detectors, family, text):
    predictor, samples = detectors(family)
    batch = batch_of(predictor, samples, 0, 1)
    before = {name: value.clone() for name, value in predictor.model.state_dict().items()}
    clean = batch.images.clone()
    found = attacked(text, predictor, batch)
    threat = build_attack(Spec.parse(text)).threat
    assert torch.equal(batch.images, clean) and 0 <= found.min() and found.max() <= 1
    assert (threat.get_size(found - clean) <= threat.epsilon * (1 + 1e-5)).all() and not torch.equal(found, clean)
    assert torch.equal(found[~batch.valid.expand_as(found)], clean[~batch.valid.expand_as(clean)])
    assert all(torch.equal(before[name], value) for name, value in predictor.model.state_dict().items())
    alone = batch_of(predictor, samples, 1)
    again = attacked(text, predictor, alone)[0]
    assert torch.equal(attacked(text, predictor, alone)[0], again)


def moved(predictor, batch, text, kind, truth=None):
    """By how much noise and an attack move the losses of a kind."""
    clean, noise, found = (predictor.loss(images, batch, kind, truth) for images in (
        batch.images, attacked('noise(epsilon=8/255)', predictor, batch), attacked(text, predictor, batch)))
    return noise - clean, found - clean


@pytest.mark.parametrize('text, kind, empty, sign', [
    ("pgd(epsilon=8/255, loss='all', steps=3)", 'all', False, 1),
    ("pgd(epsilon=8/255, loss='cls', steps=3)", 'cls', False, 1),
    ("tog(epsilon=8/255, mode='fabrication', steps=3)", 'cls', True, 1),
    ("tog(epsilon=8/255, mode='vanishing', steps=3)", 'cls', True, -1)])
@pytest.mark.parametrize('family', ['retinanet', 'detr'])
def test_each_aim_is_approached_further_than_by_noise(detectors, family, text, kind, empty, sign):
    predictor, samples = detectors(family)
    batch = batch_of(predictor, samples, 1, 4)
    noise, found = moved(predictor, batch, text, kind, [Instances()] * 2 if empty else None)
    assert (sign * found > 2 * noise.abs()).all() and (sign * found > 0).all()


@pytest.mark.parametrize('mode, sign', [('untargeted', 1), ('mislabeling_ml', -1), ('mislabeling_ll', -1)])
def test_tog_targets_the_detectors_predictions(detectors, mode, sign):
    predictor, samples = detectors('retinanet')
    batch = batch_of(predictor, samples, 1, 4)
    seen = [one.pred_instances for one in predictor.predict(batch.images, batch).predictions]
    least = min(one.scores[:3].min().item() for one in seen)
    attack = build_attack(Spec.parse(f"tog(confidence={least!r}, epsilon=8/255, mode='{mode}', steps=3)"))
    truth = [to_instances(one, min_score=least) for one in seen]
    if sign < 0:  # two classes: the likeliest other class is the least likely, too
        truth = [Instances({**one, 'bbox_label': 1 - one['bbox_label']} for one in image) for image in truth]
    assert attack._get_ground_truth(predictor, batch) == truth and all(truth)
    noise, found = moved(predictor, batch, str(Spec.of('tog', confidence=least, epsilon=EPSILON, mode=mode, steps=3)),
                         'all', truth)
    assert (sign * found > noise.abs()).all()


def test_other_labels_by_hand():
    """Two boxes overlap the detection by more than half: of class 2 with .3 and of class 0 with .1; class 3 is seen
    elsewhere, class 1 is its own."""
    seen = Instances([{'bbox': [0., 0., 10., 10.], 'bbox_label': 1, 'ignore_flag': 0}])
    boxes = torch.tensor([[0., 0, 10, 10], [0, 0, 10, 8], [1, 0, 10, 10], [5, 5, 15, 15], [0, 0, 10, 9]])
    every = Detections(boxes, labels=torch.tensor([1, 2, 0, 3, 2]), scores=torch.tensor([.9, .3, .1, .8, .2]))
    assert [one['bbox_label'] for one in replace_labels(seen, every, 4, likeliest=True)] == [2]
    assert [one['bbox_label'] for one in replace_labels(seen, every, 4, likeliest=False)] == [3]
    with pytest.raises(ValueError, match='expected two classes or more for mislabeling, got a detector of one'):
        replace_labels(seen, every, 1, likeliest=True)


def test_thresholds_come_back(folder):
    predictor, _ = tiny.detector(folder, 'mask_rcnn', **{'model.test_cfg.rcnn.score_thr': .7})
    settings = predictor.model.roi_head.test_cfg
    with disable_score_thresholds(predictor.model):
        assert settings.score_thr == 0
    assert settings.score_thr == .7


@pytest.mark.parametrize('family', ['retinanet', 'mask_rcnn', 'detr', 'dino'])
def test_dag_leads_targets_away_from_their_labels(detectors, family):
    predictor, samples = detectors(family)
    batch = batch_of(predictor, samples, 1)
    with torch.no_grad():
        compute_logits = predictor.make_target_logits(batch)
        before, after, noise = map(compute_logits, (
            batch.images, attacked('dag(epsilon=8/255, steps=10)', predictor, batch),
            attacked('noise(epsilon=8/255)', predictor, batch)))
    scores = before.softmax(1)[:, :2] if before.shape[1] == 3 else before.sigmoid()
    best, labels = scores.max(1)
    targets = best > MIN_SCORE
    if before.shape[1] == 3:
        targets &= before.argmax(1) < 2
    assert targets.any()

    def gap(logits):  # of the own label over the other one, which is the wrong one of two classes
        return (logits.gather(1, labels[:, None]) - logits.gather(1, 1 - labels[:, None]))[targets].mean()
    assert gap(before) - gap(after) > 2 * abs(gap(before) - gap(noise))


@pytest.mark.parametrize('text, words', [
    ("tog(epsilon=8/255, mode='hiding')", 'mode is one of untargeted, vanishing, .*, got .hiding'),
    ('tog(epsilon=8/255, confidence=2)', 'confidence is 0..1, got 2'),
    ('dag(epsilon=8/255, steps=0)', 'steps is 1 or more and step more than 0, got 0')])
def test_impossible_attacks_are_refused(text, words):
    with pytest.raises(ValueError, match=words):
        build_attack(Spec.parse(text))


def test_classifiers_are_refused():
    class Classifier:
        name, logits = 'pit', None
    for text in ('tog(epsilon=8/255)', 'dag(epsilon=8/255)'):
        with pytest.raises(ValueError, match='expected a detector for .*, got pit'):
            build_attack(Spec.parse(text)).run(Classifier(), None, None)


def test_attacks_from_config_to_table(folder, tmp_path):
    """The same images with and without attack, stored, and not evaluated twice; a curve in rising order."""
    tiny.config(folder, 'retinanet').dump(tmp_path / 'tiny.py')
    detector = pit.detector(tmp_path / 'tiny.py', 'random')
    benchmark = pit.benchmarks.DetectionAttacks(attacks=('noise', 'pgd(steps=1)'), epsilons=('8/255', '2/255'))
    options = {'output_dir': tmp_path / 'store', 'device': 'cpu'}
    results = pit.evaluate(detector, benchmark, batch_size=2, **options)
    assert {record.count for record in results.records} == {5}
    assert {record.condition for record in results.records} == set(map(str, results.benchmark.conditions()))
    lines = str(results).split('\n\n')[1].splitlines()
    assert lines[0].split() == ['AP', 'no', 'attack', '2/255', '8/255'] and len(lines) == 4
    assert float(lines[1].split()[1]) == round(results.table[CLEAN, 'AP'], 4) and lines[3].startswith('clean + pgd(')
    size = (tmp_path / 'store/results.jsonl').stat().st_size
    again = pit.evaluate(detector, benchmark, batch_size=3, **options)
    assert (tmp_path / 'store/results.jsonl').stat().st_size == size and str(again) == str(results)
    curves = group_curves({condition: results.table[condition, 'AP'] for condition in results.benchmark.conditions()})
    (points,) = [points for rest, points in curves.items() if rest.attack.name == 'pgd']
    assert [epsilon for epsilon, _ in points] == [2 / 255, 8 / 255]
    with pytest.raises(ValueError, match='--save-images applies to a classifier, got a detector'):
        pit.evaluate(detector, benchmark, save_images=tmp_path / 'images', **options)


def test_images_side_by_side(detectors):
    predictor, samples = detectors('retinanet')
    conditions = [CLEAN, Condition(Spec.of('brightness', severity=5)),
                  Condition(None, Spec.parse('pgd(epsilon=8/255, steps=1)'))]
    assert list(map(format_title, conditions)) == ['clean', 'brightness 5', 'pgd 8/255']
    sample = samples[1]  # 64 x 48, enlarged twice to 128 x 96
    paper = draw_panels(predictor, sample, conditions, samples.classes, score_thr=1., least=128)
    assert paper.size == (3 * 128 + 2 * 8, 96 + 16)
    pixels = torch.tensor(list(paper.crop((0, 16, 128, 112)).getdata())).view(96, 128, 3).permute(2, 0, 1)
    raw = sample.image.repeat_interleave(2, 1).repeat_interleave(2, 2)
    assert (pixels - raw).abs().float().mean() < 12  # once to network size and back
    mean = [torch.tensor(list(paper.crop((136 * place, 16, 136 * place + 128, 112)).getdata())).float().mean()
            for place in range(3)]
    assert mean[1] > mean[0] + 30 and abs(mean[2] - mean[0]) < 8


@pytest.mark.parametrize('family, text', [*(('retinanet', text) for text in SPECS), ('mask_rcnn', SPECS[2]),
                                          ('detr', SPECS[2]), ('retinanet', 'dpatch(epsilon=1)')])
def test_inference_mode_changes_nothing(detectors, family, text):
    predictor, samples = detectors(family)
    for seen in (predictor, OriginalSizePredictor(predictor)):
        batch = batch_of(seen, samples, 0, 1)
        wanted = attacked(text, seen, batch)
        with torch.inference_mode():
            inside = batch_of(seen, samples, 0, 1)
            found = attacked(text, seen, inside)
        assert inside.images.is_inference() and torch.equal(found, wanted)
        assert not torch.equal(found, batch.images)


def test_a_patch_trained_in_inference_mode_is_the_same(detectors):
    predictor, samples = detectors('retinanet')

    def train():
        batches = draw_batches(predictor, [samples[1], samples[4]], count=2, size=2)
        return list(dpatch.train_patch(predictor, batches, step=.1))[-1]
    wanted = train()
    with torch.inference_mode():
        assert torch.equal(train(), wanted)
    assert not torch.equal(wanted, dpatch.draw_patch(0))


NOISE = np.random.default_rng(0).random((3, 8, 8), np.float32)


@pytest.mark.parametrize('values, fact', [
    (np.where(NOISE > .9, np.nan, NOISE), 'nan'), (np.where(NOISE > .9, np.inf, NOISE), 'inf'),
    (NOISE * 255, '0..1'), (NOISE - .5, '0..1'), (NOISE[0], r'\(8, 8\)'), (NOISE[:2], r'\(2, 8, 8\)'),
    (NOISE.transpose(1, 2, 0), r'\(8, 8, 3\)'), (NOISE[:, :4], r'\(3, 4, 8\)'), (NOISE[:, :0, :0], r'\(3, 0, 0\)'),
    ((NOISE * 255).astype(np.uint8), 'uint8'), (np.array(['a']), '<U1'), (np.array([{}], object), 'allow_pickle'),
    (b'', 'no NumPy array'), (b'text', 'no NumPy array')])
def test_patches_that_are_none_are_refused_before_any_work(values, fact, tmp_path):
    path = tmp_path / 'patch.npy'
    if isinstance(values, bytes):
        path.write_bytes(values)
    else:
        np.save(path, values, allow_pickle=True)
    with pytest.raises(ValueError, match=fact) as caught:
        build_attack(Spec.parse(f"dpatch(epsilon=1, file='{path}')"))
    assert str(path) in str(caught.value)


@pytest.mark.parametrize('place, top, left', [('corner', 0, 0), ('center', 16, 28)])
def test_where_a_patch_is_pasted(detectors, place, top, left):
    """Image 10 is 72 x 96 (height x width) in the network; its middle begins at (72 - 40) / 2, (96 - 40) / 2."""
    predictor, samples = detectors('retinanet')
    batch = batch_of(predictor, samples, 1, 4)
    batch = replace(batch, images=batch.images * .5)
    found = dpatch.apply_patch(batch, torch.ones(3, 120, 120), share=40 / 72, place=place)
    size = batch.samples[0].target.network_shape
    assert size == (72, 96)
    changed = (found[0] != batch.images[0]).any(0)
    assert changed.sum() == 40 * 40 and changed[top:top + 40, left:left + 40].all()
    torch.testing.assert_close(found[0][:, changed], torch.ones(3, 1600))
    assert not (found != batch.images)[~batch.valid.expand_as(found)].any()


def test_a_patch_is_trained_kept_and_pasted(detectors, tmp_path):
    """On two images it climbs further than noise of its size does."""
    predictor, samples = detectors('retinanet')
    batch = batch_of(predictor, samples, 1, 4)
    batches = list(draw_batches(predictor, [samples[1], samples[4]], count=6, size=2))
    *_, found = dpatch.train_patch(predictor, batches, step=.1)
    path = dpatch.save_patch(found, tmp_path)
    assert dpatch.save_patch(found, tmp_path) == path and found.shape == (3, 120, 120)
    assert 0 <= found.min() <= found.max() <= 1
    clean, noise, trained = (predictor.loss(images, batch).sum() for images in (
        batch.images, attacked('dpatch(epsilon=1)', predictor, batch),
        attacked(f"dpatch(epsilon=1, file='{path}')", predictor, batch)))
    assert trained > noise and trained > clean
    pasted = attacked(f"dpatch(epsilon=1, file='{path}')", predictor, batch)
    assert torch.equal(pasted, dpatch.apply_patch(batch, found))
    with pytest.raises(ValueError, match='expected a patch in nowhere.npy, found no such file. Make one with'):
        build_attack(Spec.parse("dpatch(epsilon=1, file='nowhere.npy')"))
    with pytest.raises(ValueError, match='expected place as one of corner, center and share in 0..1, got .side.'):
        build_attack(Spec.parse("dpatch(epsilon=1, place='side')"))
    with pytest.raises(ValueError, match='norm is one of Linf for DPatch, got .L2.|norm is one of Linf for dpatch'):
        build_attack(Spec.parse("dpatch(epsilon=1, norm='L2')"))
