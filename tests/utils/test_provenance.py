import json
import re

import torch

import pit_downstream
from pit_downstream.utils.provenance import collect_provenance, write_provenance


def test_runs_are_logged(tmp_path):
    run = collect_provenance(device='cpu', seed=3, argv=['tools/x.py', '--limit', '5'])
    assert (run['device'], run['seed'], run['argv']) == ('cpu', 3, ['tools/x.py', '--limit', '5'])
    assert run['versions']['torch'] == torch.__version__.split('+')[0] or run['versions']['torch'] == torch.__version__
    assert run['versions']['pit_downstream'] == pit_downstream.__version__
    assert re.fullmatch(r'\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00', run['started'])
    assert re.fullmatch(r'([0-9a-f]{7,}\+?)?', run['commit'])
    for _ in range(2):
        write_provenance(tmp_path / 'new' / 'runs.jsonl', run)
    assert [json.loads(line) for line in (tmp_path / 'new' / 'runs.jsonl').read_text().splitlines()] == [run, run]


def test_without_git_the_commit_is_unknown(monkeypatch):
    monkeypatch.setenv('PATH', '')
    assert collect_provenance(device='cpu', seed=0)['commit'] == ''
