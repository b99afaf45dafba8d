"""`pip install .` evaluates timm classifiers; a tool that needs an extra reports it."""

import os
import re
import runpy
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from pit_downstream.cli.main import TOOLS
from pit_downstream.utils.extras import EXTRAS

ROOT = Path(__file__).parents[2]
CORE_TOOLS = {'evaluate', 'eval_imagenet_c', 'eval_shifts', 'show_corruptions'}
DETECTOR = ('--model', 'retinanet_pit_ti', '--weights', 'random', '--bundled')
NEEDS = [  # tool, flags, extra
    ('train', ('retinanet_pit_ti', '--bundled'), 'det'),
    ('test', ('retinanet_pit_ti', 'epoch_1.pth', '--bundled'), 'det'),
    ('eval_coco_c', DETECTOR, 'det'),
    ('show_detections', DETECTOR, 'det'),
    ('train_patch', (*DETECTOR, '--steps', '1'), 'det'),
    ('eval_adversarial', DETECTOR, 'train'),
    ('get_complexity', DETECTOR[:2], 'train'),
    ('train_classifier', ('cifar10_pit_ti', '--bundled'), 'train'),
    ('convert_weights', ('pit_s.pth', '--model', 'pit_s', '--output', 'new.pth'), 'train'),
    ('export', ('--model', 'pit_s', '--weights', 'random', '--output', 'pit_s.onnx'), 'export'),
    ('analyze_attention', ('--model', 'test_vit', '--weights', 'random', '--bundled', '--output-dir', '.'), 'report'),
    ('make_report', ('.',), 'report'),
]


def run_without(modules, code, *arguments, cwd):
    """Run Python code in a process in which `modules` cannot be imported."""
    block = f'import sys; sys.modules.update(dict.fromkeys({sorted(modules)!r}))\n'
    return subprocess.run([sys.executable, '-c', block + code, *map(str, arguments)], cwd=cwd, capture_output=True,
                          text=True, timeout=300, env={**os.environ, 'PYTHONPATH': str(ROOT)})


def modules_outside_core():
    """Return the modules of all installed distributions that `pip install .` does not require."""
    options = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('setuptools.setup', options.update)
        runpy.run_path(str(ROOT / 'setup.py'))
    required, pending = {'pit-downstream'}, [Requirement(line) for line in options['install_requires']]
    while pending:
        requirement = pending.pop()
        name = re.sub('[-_.]+', '-', requirement.name).lower()
        if name not in required and (not requirement.marker or requirement.marker.evaluate({'extra': ''})):
            required.add(name)
            pending += map(Requirement, metadata.requires(name) or [])
    return {'pkg_resources'} | {  # not in the current setuptools
        module for module, providers in metadata.packages_distributions().items()
        if not required & {re.sub('[-_.]+', '-', provider).lower() for provider in providers}}


def test_every_tool_is_covered():
    assert {tool for tool, _, _ in NEEDS} | CORE_TOOLS == set(TOOLS)


def test_core_evaluates_a_timm_classifier(few_shapes, tmp_path):
    hidden = modules_outside_core()
    assert {'mmengine', 'mmdet', 'mmcv', 'onnx', 'matplotlib', 'pytest', 'faster_coco_eval', 'yapf'} - hidden <= {
        'faster_coco_eval'}
    assert not hidden & {'torch', 'timm', 'numpy', 'PIL', 'safetensors', 'imagecorruptions', 'pit_downstream'}
    done = run_without(hidden, 'from pit_downstream.cli.main import main; main(sys.argv[1:])', 'eval-imagenet-c',
                       '--model', 'test_vit(num_classes=4)', '--weights', 'random', '--data',
                       few_shapes / 'classification' / 'val', '--corruptions', 'frost', 'fog', '--severities', '1',
                       '--workers', '0', cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert re.search(r'^frost +[01]\.\d', done.stdout, re.MULTILINE), done.stdout


@pytest.mark.parametrize('tool, flags, extra', NEEDS, ids=[tool for tool, _, _ in NEEDS])
def test_missing_extra_is_reported_with_the_pip_command(tool, flags, extra, tmp_path):
    done = run_without(set().union(*EXTRAS.values()), 'from pit_downstream.cli.main import main; main(sys.argv[1:])',
                       tool, *flags, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    message, = done.stderr.splitlines()
    assert f"Run pip install 'pit_downstream[{extra}]'." in message and done.stdout == ''
