"""A model is checked before it is attacked: what makes every result meaningless must not come after hours."""

import pytest

import pit_downstream as pit
from pit_downstream.benchmarks import Adversarial
from pit_downstream.datasets.base import ImageFolderSamples
from pit_downstream.datasets.imagenet import load_class_folders
from pit_downstream.evaluation import robustness_checks
from pit_downstream.evaluation.evaluator import EvaluationOptions, Evaluator, Store
from pit_downstream.evaluation.models import build_classifier
from pit_downstream.metrics.classification import make_top1_error
from tests.evaluation import toy

NOISE = Adversarial(attacks=('noise',), epsilons=('8/255',))


def test_checks_come_before_attacks(tmp_path, monkeypatch):
    folder, store = toy.recognised(tmp_path / 'val', count=8), tmp_path / 'store'

    def refuse(predictor, batch):
        raise ValueError('no use')
    with monkeypatch.context() as changed, pytest.raises(ValueError, match='no use'):
        changed.setattr(robustness_checks, 'check_before', refuse)
        pit.evaluate(toy.FOUR, NOISE, data=folder, output_dir=store)
    assert not (store / 'outcomes.jsonl').exists()
    with monkeypatch.context() as changed:
        changed.setattr(robustness_checks, 'check_before', refuse)
        results = pit.evaluate(toy.FOUR, Adversarial(attacks=()), data=folder, output_dir=store)
    assert results.warnings == () and len(results.table) == 1  # without an attack nothing is checked
    monkeypatch.setattr(robustness_checks, 'check_before', lambda predictor, batch: (f'{len(batch.images)} images',))
    assert pit.evaluate(toy.FOUR, NOISE, data=folder, output_dir=store).warnings[0] == '8 images'


@pytest.mark.parametrize('out', ['../val/{}', '{}'])
def test_no_id_leaves_the_folder_of_saved_images(tmp_path, out):
    """Relative to the images an id is a good path, relative to the output folder it is outside; a link as well."""
    predictor = build_classifier(toy.FOUR)
    found = load_class_folders(toy.recognised(tmp_path / 'val', count=4), view=predictor.view)
    samples = ImageFolderSamples(found.root, [out.format(id) for id in found.ids], found.targets, view=found.view,
                                 name='toy')
    if out == '{}':  # a link in the folder of one condition
        condition = 'images/clean_noise_epsilon=8_255_norm=Linf'
        (tmp_path / condition).mkdir(parents=True)
        (tmp_path / 'elsewhere').mkdir()
        (tmp_path / condition / found.ids[0].split("/")[0]).symlink_to(tmp_path / 'elsewhere')
    before = set(tmp_path.rglob('*'))
    with pytest.raises(ValueError, match='leaves the output folder'):
        Evaluator(predictor, samples, [make_top1_error()], NOISE.conditions(), store=Store(tmp_path / 'store'),
                  options=EvaluationOptions(save_images=tmp_path / 'images')).run()
    created = {path.relative_to(tmp_path).parts[0] for path in set(tmp_path.rglob('*')) - before}
    assert created <= {'images', 'store'} and not (tmp_path / 'store/outcomes.jsonl').exists()
