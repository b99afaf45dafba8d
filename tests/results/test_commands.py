import shlex

import pytest

from pit_downstream.results.commands import build_command, get_tool, parse_flags


def test_flags_have_the_values_up_to_the_next_flag():
    assert parse_flags(['--model', 'm', '--corruptions', 'fog', 'snow', '--bgr', '--limit=9', '--lr', '-1']) == {
        '--model': ['m'], '--corruptions': ['fog', 'snow'], '--bgr': [], '--limit': ['9'], '--lr': ['-1']}


@pytest.mark.parametrize('program', ['tools/eval_coco_c.py', '/opt/x/eval-coco-c', 'pit-downstream eval-coco-c',
                                     '/usr/bin/pit-downstream eval-coco-c'])
def test_every_entry_point_is_the_tool(program):
    assert get_tool(program) == 'eval-coco-c'
    assert build_command([program, '--model', 'm'], {}) == 'pit-downstream eval-coco-c --model m'


def test_flags_replace_those_of_the_run_and_others_stay():
    argv = ['tools/eval_imagenet_c.py', '--model', "pit_s(weights='a b.pth')", '--severities', '1', '--limit=9']
    command = build_command(argv, {'--severities': ['3', '5'], '--corruptions': ['fog']})
    assert shlex.split(command) == ['pit-downstream', 'eval-imagenet-c', '--model', "pit_s(weights='a b.pth')",
                                    '--severities', '3', '5', '--limit', '9', '--corruptions', 'fog']
