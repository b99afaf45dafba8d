"""A model is asked before it is attacked: what makes every result meaningless must not come after hours."""

import pytest

from pit_downstream.core.condition import CLEAN, Condition
from pit_downstream.core.records import ResultStore
from pit_downstream.core.spec import Spec
from pit_downstream.datasets.imagenet import class_folders
from pit_downstream.evaluation import robustness
from pit_downstream.evaluation.models import build_classifier
from tests.evaluation import toy


def test_checks_come_before_attacks(tmp_path, monkeypatch):
    predictor = build_classifier(toy.FOUR)
    samples = class_folders(toy.recognised(tmp_path / 'val', count=8), view=predictor.view)
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
