"""model-index.yml and the page made of it: configs exist and all have a row, sources are named, costs are counted."""

import pytest

from speed import zoo
from pit_downstream.evaluation.complexity import classifier_complexity
from tests.evaluation.test_complexity import without_weights

MODELS = zoo.index()['Models']


def test_page_matches_the_index():
    assert zoo.PAGE.read_text() == zoo.page(), 'run python -m speed.zoo'


def test_every_config_has_a_row_and_every_row_a_config():
    configs = {f'configs/{path.name}' for path in (zoo.ROOT / 'configs').glob('*.py')}
    assert {model['Config'] for model in MODELS if 'Config' in model} <= configs
    page = zoo.page()
    assert [config for config in configs if f'(../{config})' not in page] == []


def test_models_are_of_a_collection_and_named_once():
    assert {model['In Collection'] for model in MODELS} <= {one['Name'] for one in zoo.index()['Collections']}
    names = [model['Name'] for model in MODELS]
    assert len(names) == len(set(names))


def test_what_is_not_ours_has_a_source_and_what_is_has_a_command():
    for model in MODELS:
        assert ('Command' in model) == ('Results' in model) == ('Published' not in model)
        assert all(one['Source'] for one in model.get('Published', ()))


def test_a_time_that_is_not_known_reads_as_such():
    assert (zoo.spent('not measured'), zoo.spent('7 min')) == ('time not measured,', '7 min')


@pytest.mark.parametrize('name', ['pit_xs', 'vit_s'])
def test_costs_are_counted(name):
    about = next(model['Metadata'] for model in MODELS if model['Name'] == name)
    found = classifier_complexity(without_weights(name), 224, 224)
    assert (about['Parameters'], about['MACs']) == (found.parameters, found.macs)
