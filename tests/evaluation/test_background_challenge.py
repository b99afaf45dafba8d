"""The challenge against a plain loop over every foreground on every background."""

import numpy as np
import pytest
import torch
from PIL import Image

from pit_downstream.results.condition import CLEAN
from pit_downstream.utils.registry import DATASETS
from pit_downstream.utils.spec import Spec
from pit_downstream.datasets.backgrounds import IN9
from pit_downstream.datasets.base import Preprocess
from pit_downstream.evaluation import evaluator
from pit_downstream.evaluation.background_challenge import ChallengeError, ChallengeSamples, find_fooled
from pit_downstream.evaluation.classifier import ClassifierPredictor, Preparation
from pit_downstream.evaluation.evaluator import EvaluationOptions, Evaluator, Store
from tests.datasets import shift_folders
from tests.evaluation import toy

SIDE = toy.SIDE


@pytest.fixture(scope='module')
def predictor():
    """Sees an insect or a reptile in most things, so that some foregrounds hold and others do not."""
    model = toy.Toy(1000)
    with torch.no_grad():
        model.head.bias[[300, 40, 7]] = torch.tensor([1000., 1001., 998.], dtype=torch.float64)
        model.head.weight.mul_(3.)
    return ClassifierPredictor(model, Preparation(Preprocess(SIDE, None)), name='toy')


@pytest.fixture
def challenge(tmp_path):
    return DATASETS['in9_challenge'](shift_folders.challenge(tmp_path / 'in9', side=SIDE), view=Preprocess(SIDE, 40))


def evaluate(predictor, challenge, store=None, size=5):
    """Return the records of the challenge, in batches of 7 foregrounds and `size` pairs."""
    return Evaluator(predictor, ChallengeSamples(challenge, batch_size=size), [ChallengeError()], [CLEAN],
                     store=Store(store), options=EvaluationOptions(batch_size=7)).run()


def pixels(path):
    with Image.open(path) as picture:
        return np.asarray(picture).transpose(2, 0, 1) / np.float32(255)


def by_the_book(predictor, root):
    """bg * (1 - mask) + mask * img on each background, one image at a time; {class: [vulnerable ...]}."""
    verdicts = {}
    for (name, indices), folder in zip(IN9.items(), sorted((root / 'fg_mask' / 'val').iterdir()), strict=True):
        for path in sorted(folder.iterdir()):
            mask = np.load(path).astype(np.float32)
            image = pixels(root / 'original' / 'val' / folder.name / f'{path.stem}.JPEG')
            pasted = [pixels(ground) * (1 - mask) + mask * image
                      for ground in sorted((root / 'only_bg_t' / 'val').rglob('*.JPEG'))]
            found = [int(predictor.predict(torch.tensor(one)[None], None).predictions.argmax()) for one in pasted]
            verdicts.setdefault(name, []).append(any(one not in indices for one in found))
    return verdicts


def test_the_verdicts_are_those_of_the_plain_loop(predictor, challenge, tmp_path):
    wanted = by_the_book(predictor, tmp_path / 'in9')
    every = [verdict for verdicts in wanted.values() for verdict in verdicts]
    assert 0 < sum(every) < len(every) == 18
    table = evaluate(predictor, challenge)
    assert table[CLEAN, 'top1_error'] == sum(every) / 18 and table.record((CLEAN, 'top1_error')).count == 18
    assert {name: table[CLEAN, 'top1_error', '', name] for name in IN9} == {
        name: sum(verdicts) / 2 for name, verdicts in wanted.items()}
    masks = Spec.parse(table.dataset).get('mask_files')
    assert len(masks) == 16 and table.dataset == (
        f"in9_challenge(background_files={challenge.backgrounds.files!r}, backgrounds=18, classes=9, "
        f"files={challenge.samples.files!r}, images=18, interpolation='bilinear', mask_files={masks!r}, resize=32, "
        'size=32)')
    mask = next((tmp_path / 'in9' / 'fg_mask').rglob('*.npy'))
    np.save(mask, ~np.load(mask).astype(bool))
    other = DATASETS['in9_challenge'](tmp_path / 'in9', view=predictor.view)
    assert Spec.parse(other.samples.name).get('mask_files') != masks


def test_outcomes_of_a_killed_run_are_not_measured_again(predictor, challenge, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluator, 'BLOCK', 7)
    whole = evaluate(predictor, challenge, tmp_path)
    lines = (tmp_path / 'outcomes.jsonl').read_text().splitlines(keepends=True)
    assert len(lines) == 3
    (tmp_path / 'results.jsonl').unlink()
    (tmp_path / 'outcomes.jsonl').write_text(lines[0] + lines[1][:30])  # killed in the second block
    assert evaluate(predictor, challenge, tmp_path, size=3).records == whole.records
    assert (tmp_path / 'outcomes.jsonl').read_text().splitlines(keepends=True) == lines


@pytest.mark.parametrize('size', [1, 3, 64])
def test_the_batch_size_changes_no_verdict(predictor, size):
    random = torch.Generator().manual_seed(1)
    foregrounds, backgrounds = (torch.randint(0, 256, (count, 3, SIDE, SIDE), generator=random, dtype=torch.uint8)
                                for count in (7, 11))
    masks = torch.rand(7, 1, SIDE, SIDE, generator=random) < .5
    found = find_fooled(predictor, foregrounds, masks, backgrounds, IN9['insect'], batch_size=size)
    assert torch.equal(found, find_fooled(predictor, foregrounds, masks, backgrounds, IN9['insect'], batch_size=20))
    everything = find_fooled(predictor, foregrounds, masks, backgrounds, tuple(range(1000)), batch_size=size)
    assert not everything.any()


def test_what_does_not_fit_gets_one_sentence(predictor, challenge, tmp_path):
    masks = tmp_path / 'in9' / 'fg_mask' / 'val' / '03_reptile'
    np.save(masks / '0.npy', np.zeros((8, 9)))
    with pytest.raises(ValueError, match='mask of 03_reptile/0.JPEG has 8 x 9 pixels, its image 32 x 32. Pass a model'):
        evaluate(predictor, challenge)
    np.save(masks / '0.npy', np.full((SIDE, SIDE), 255))
    with pytest.raises(ValueError, match='A mask must be an array .* of zeros and ones, .* up to 255 in .*0.npy'):
        challenge.load_mask(6)
    np.save(masks / '5.npy', np.zeros((SIDE, SIDE)))
    with pytest.raises(ValueError, match='1 of 19 masks in .* have no image in .*: 03_reptile/5.JPEG. Unpack'):
        DATASETS['in9_challenge'](tmp_path / 'in9', view=Preprocess(SIDE, 40))
