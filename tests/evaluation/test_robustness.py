"""A model is asked before it is attacked: what makes every result meaningless must not come after hours."""

import pytest

from pit_downstream.results.condition import CLEAN, Condition
from pit_downstream.results.records import ResultStore
from pit_downstream.utils.spec import Spec
from pit_downstream.datasets.base import ImageFolderSamples
from pit_downstream.datasets.imagenet import load_class_folders
from pit_downstream.evaluation import robustness
from pit_downstream.evaluation.models import build_classifier
from tests.evaluation import toy


def test_checks_come_before_attacks(tmp_path, monkeypatch):
    predictor = build_classifier(toy.FOUR)
    samples = load_class_folders(toy.recognised(tmp_path / 'val', count=8), view=predictor.view)
    conditions = [CLEAN, Condition(None, Spec.parse('noise(epsilon=8/255)'))]
    store = ResultStore(tmp_path / 'results.jsonl')

    def refuse(predictor, batch):
        raise ValueError('no use')
    with monkeypatch.context() as changed, pytest.raises(ValueError, match='no use'):
        changed.setattr(robustness, 'check_before', refuse)
        robustness.keep_robustness(store, predictor, samples, conditions)
    assert not (tmp_path / 'verdicts.jsonl').exists()
    found = robustness.keep_robustness(store, predictor, samples, conditions[:1])
    assert found.warnings == () and len(found.table) == 1  # without an attack nothing is asked
    monkeypatch.setattr(robustness, 'check_before', lambda predictor, batch: (f'asked on {len(batch.images)}',))
    assert robustness.keep_robustness(store, predictor, samples, conditions).warnings[0] == 'asked on 8'


@pytest.mark.parametrize('out', ['../val/{}', '{}'])
def test_no_id_leaves_the_folder_of_saved_images(tmp_path, out):
    """Relative to the images an id is a good path, relative to the output folder it is outside; a link as well."""
    predictor = build_classifier(toy.FOUR)
    found = load_class_folders(toy.recognised(tmp_path / 'val', count=4), view=predictor.view)
    samples = ImageFolderSamples(found.root, [out.format(id) for id in found.ids], found.targets, view=found.view,
                             name='toy')
    if out == '{}':  # a link in the folder of one condition
        (tmp_path / 'images/clean_noise_epsilon=8_255').mkdir(parents=True)
        (tmp_path / 'elsewhere').mkdir()
        (tmp_path / f'images/clean_noise_epsilon=8_255/{found.ids[0].split("/")[0]}').symlink_to(tmp_path / 'elsewhere')
    before = {path for path in tmp_path.rglob('*')}
    conditions = [CLEAN, Condition(None, Spec.parse('noise(epsilon=8/255)'))]
    with pytest.raises(ValueError, match='leaves the output folder'):
        robustness.keep_robustness(ResultStore(tmp_path / 'results.jsonl'), predictor, samples, conditions,
                                   save=tmp_path / 'images')
    assert {path.relative_to(tmp_path).parts[0] for path in set(tmp_path.rglob('*')) - before} <= {'images'}
