"""Detectors that return NaN: mmdet filters it, so that an image would look like one without objects."""

import pytest
import torch

from pit_downstream.results.condition import CLEAN, Condition
from pit_downstream.det.finite import NanWatch
from pit_downstream.det.metric import build_metric
from pit_downstream.det.predictor import build_detector
from pit_downstream.results.records import ResultStore
from tests.det import scenes, tiny
from tests.evaluation.test_evaluator import measure

TOOLS = {'eval_coco_c.py': ('--corruptions', 'none'), 'eval_adversarial.py': ('--attacks', 'noise'),
         'train_patch.py': ('--steps', '1', '--batch-size', '2'), 'show_detections.py': ('--corruptions', '--attacks'),
         'test.py': ()}


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return scenes.coco_folder(tmp_path_factory.mktemp('data') / 'data')


def write_weights(cfg, path, name, value):
    """Random weights of which one number of tensor `name` is replaced; all of them for a finite value."""
    state = build_detector(cfg, 'random', config='x').model.state_dict()
    state[name].view(-1)[0 if value != 1e38 else slice(None)] = value
    torch.save({'state_dict': state}, path)


@pytest.mark.parametrize('tool', TOOLS)
@pytest.mark.parametrize('name, value, words', [
    ('backbone.layer1.0.conv1.weight', float('nan'), 'not finite'),
    ('backbone.layer1.0.bn1.running_var', float('inf'), 'not finite'),
    ('backbone.conv1.weight', 1e38, 'NaN')])  # finite weights, of which activations are not
def test_no_tool_takes_nan_for_an_image_without_objects(run_tool, tmp_path, data, tool, name, value, words):
    cfg = tiny.training(data, 'fcos')
    cfg.dump(tmp_path / 'tiny.py')
    write_weights(cfg, tmp_path / 'bad.pth', name, value)
    flags = ['tiny.py', 'bad.pth'] if tool == 'test.py' else [
        '--model', 'tiny.py', '--weights', 'bad.pth', *TOOLS[tool], '--device', 'cpu', '--limit', '2']
    done = run_tool(tool, *flags, *(['--workers', '0'] if tool.startswith('eval') else []))
    assert done.code == 2 and words in done.err and 'Traceback' not in done.err, done.err
    assert 'bad.pth' in done.err if words == 'not finite' else any(one in done.err for one in ('13', '10', 'a.png'))
    records = tmp_path / 'work_dirs/records/results.jsonl'
    assert not records.exists() or not records.read_text()


@pytest.mark.parametrize('text', ['brightness(severity=5)', 'clean + noise(epsilon=32/255)'])
def test_nan_under_a_condition_is_refused_with_condition_and_image(data, text, tmp_path):
    """The backbone returns NaN for all images but the clean ones."""
    predictor, samples = tiny.detector(data, 'fcos')
    seen: list[torch.Tensor] = []
    learning = True

    def spoil(module, inputs, outputs):
        if learning:
            seen.append(inputs[0].sum())
        return outputs if inputs[0].sum() in seen else tuple(one * float('nan') for one in outputs)
    predictor.model.backbone.register_forward_hook(spoil)
    metrics = [build_metric(tiny.config(data, 'fcos'), samples)]
    clean = measure(predictor, samples, metrics, [CLEAN], store=tmp_path, batch_size=5)
    learning = False
    with pytest.raises(ValueError) as error:
        measure(predictor, samples, metrics, [CLEAN, Condition.parse(text)], store=tmp_path, batch_size=5)
    assert ResultStore(tmp_path / 'results.jsonl').records() == clean
    assert text.split('(')[0] in str(error.value) and any(str(id) in str(error.value) for id in range(10, 15))


@pytest.mark.parametrize('family', tiny.FAMILIES)
def test_nan_from_the_backbone_arrives_in_the_heads_of_every_family(data, family):
    predictor, samples = tiny.detector(data, family)
    watch = NanWatch(predictor.model)
    batch = predictor.collate([samples[0]])
    (_, inputs), = predictor.model_inputs(batch.images, batch)
    predictor.predict(batch.images, batch)
    assert not watch.pop()
    predictor.model.backbone.register_forward_hook(lambda module, given, out: tuple(one * float('nan') for one in out))
    with pytest.raises(ValueError, match=samples[0].id):
        predictor.predict(batch.images, batch)
    assert watch.pop() and not watch.pop()
