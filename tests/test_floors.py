"""The floors of the house: imports go down only, and each floor knows just the libraries it is meant to.

The rules read every import in the source, also those inside functions. The last tests plant each kind of offence and
expect it to be found.
"""
import ast
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = 'pit_downstream'

FLOORS = {'core': 0, 'checkpoints': 0.5, 'streams': 0.5, 'corruptions': 1, 'attacks': 1, 'backbones': 1, 'attention': 1,
          'metrics': 1, 'datasets': 1, 'benchmarks': 1, 'evaluation': 2, 'report': 2,
          'training': 2.5,  # prepares images as evaluation does; det/ launches its runs with it
          'det': 3, 'cli': 4, 'check': 4}
NEIGHBOURS = {('metrics/attention.py', 'attention'), ('report', 'benchmarks')}  # DESIGN.md allows these two
BRIDGED = {'mmdet', 'mmcv'}  # for det/ alone, and for the check that they work
LIBRARIES = {  # third-party imports of a room; a room not named here may import any that is not bridged
    'core': {'filelock'},  # several processes append to one store; a pure Python package that torch needs, too
    'benchmarks': set(),
    'checkpoints': {'torch'},
    'streams': {'torch'},
    'backbones': {'torch', 'timm', 'mmengine', 'onnxruntime'},  # which checks what is exported
    'corruptions': {'torch', 'imagecorruptions', 'numpy', 'PIL'},  # frost's textures lie in imagecorruptions
    'attacks': {'torch'},
    'report': {'matplotlib', 'jinja2'},
}
PRINTERS = {  # what is run as `python -m`, and the sentence with which every tool ends on bad input
    'check.py': 'main', 'datasets/shapes.py': 'main', 'cli/errors.py': '_end'}


class Import(NamedTuple):
    path: str  # below the package: 'metrics/attention.py'
    line: int
    name: str  # absolute and dotted: 'pit_downstream.core.spec'

    @property
    def room(self) -> str:
        return self.path.split('/')[0].removesuffix('.py')

    @property
    def target(self) -> str | None:
        """The room it imports from, '' for the package itself, None for another library."""
        top, *inner = self.name.split('.')
        return None if top != PACKAGE else (inner or [''])[0]


def sources() -> dict[str, str]:
    folder = ROOT / PACKAGE
    return {path.relative_to(folder).as_posix(): path.read_text() for path in sorted(folder.rglob('*.py'))}


def imports(path: str, text: str) -> list[Import]:
    """Every import statement, and every import_module with a constant name; relative ones made absolute."""
    parents = [PACKAGE, *path.split('/')[:-1]]
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = '.'.join([*parents[:len(parents) - node.level + 1], *filter(None, [node.module])]
                            if node.level else [node.module])
            # `from .. import x` and `from pit_downstream import x` name a room only with x
            found += [(node.lineno, f'{base}.{alias.name}' if base == PACKAGE else base) for alias in node.names]
        elif isinstance(node, ast.Call) and getattr(node.func, 'attr', getattr(node.func, 'id', '')) in (
                'import_module', '__import__') and node.args and isinstance(node.args[0], ast.Constant):
            found.append((node.lineno, node.args[0].value))
    return [Import(path, line, name) for line, name in dict.fromkeys(found)]


def offence(found: Import) -> str | None:
    """What is wrong with one import, or None."""
    room, target = found.room, found.target
    if target is None:
        return _library_offence(room, found.name.split('.')[0])
    if target in ('', '__version__', room):
        return None
    if room not in FLOORS or target not in FLOORS:
        return 'has no floor yet; add it to FLOORS' if room != '__init__' else 'the package itself imports nothing'
    if FLOORS[target] < FLOORS[room]:
        return _report_offence(room, target)
    if {(room, target), (found.path, target)} & NEIGHBOURS:
        return None
    return f'floor {FLOORS[room]} imports from floor {FLOORS[target]}'


def _library_offence(room: str, library: str) -> str | None:
    if library in sys.stdlib_module_names:
        return None
    if room == '__init__':
        return 'the package itself imports nothing'
    if library not in LIBRARIES.get(room, {library}):
        return f'{room} may import only {sorted(LIBRARIES[room]) or "the standard library"}'
    if library in BRIDGED and room not in ('det', 'check'):
        return 'only det/ imports mmdet and mmcv'
    return None


def _report_offence(room: str, target: str) -> str | None:
    """report/ reads records and names benchmarks; everything else would bring torch."""
    allowed = room != 'report' or target in ('core', 'benchmarks')
    return None if allowed else 'report knows core and benchmarks only'


def offences(files: dict[str, str]) -> list[str]:
    found = [(one, offence(one)) for path, text in files.items() for one in imports(path, text)]
    return [f'{PACKAGE}/{one.path}:{one.line} imports {one.name}: {wrong}' for one, wrong in found if wrong]


def stray_prints(files: dict[str, str]) -> list[str]:
    """Calls of print outside the functions that are there to print."""
    stray = []
    for path, text in files.items():
        tree = ast.parse(text)
        allowed = {id(inner) for node in tree.body if isinstance(node, ast.FunctionDef)
                   and node.name == PRINTERS.get(path) for inner in ast.walk(node)}
        stray += [f'{PACKAGE}/{path}:{node.lineno} prints' for node in ast.walk(tree)
                  if isinstance(node, ast.Call) and getattr(node.func, 'id', '') == 'print' and id(node) not in allowed]
    return stray


def cli_users(scripts: dict[str, str]) -> list[str]:
    return [path for path, text in scripts.items() if any(one.target == 'cli' for one in imports(path, text))]


def test_imports_go_down():
    assert offences(sources()) == []


def test_nothing_prints():
    assert stray_prints(sources()) == []


def test_only_tools_import_cli():
    """Inside the package the floors see to it (cli is the top one); here everything else in the repository."""
    scripts = {path.relative_to(ROOT).as_posix(): path.read_text() for folder in ('benchmarks', 'configs')
               for path in sorted((ROOT / folder).rglob('*.py'))}
    assert cli_users(scripts) == []


def test_every_room_has_a_floor():
    rooms = {path.split('/')[0].removesuffix('.py') for path in sources()} - {'__init__'}
    assert rooms <= FLOORS.keys()


@pytest.mark.parametrize('path, line, words', [
    ('core/spec.py', 'import torch', "core may import only ['filelock']"),
    ('core/spec.py', 'from pit_downstream.attacks import base', 'floor 0 imports from floor 1'),
    ('core/spec.py', 'from ..attacks.base import Attack', 'floor 0 imports from floor 1'),
    ('core/spec.py', 'from .. import attacks', 'floor 0 imports from floor 1'),
    ('core/spec.py', 'def f():\n    import numpy', "core may import only ['filelock']"),
    ('core/spec.py', 'import_module("torch")', "core may import only ['filelock']"),
    ('attacks/base.py', 'import pit_downstream.corruptions.base', 'floor 1 imports from floor 1'),
    ('metrics/classification.py', 'from ..attention import trace', 'floor 1 imports from floor 1'),
    ('backbones/pit.py', 'from mmdet.registry import MODELS', 'backbones may import only'),
    ('backbones/pit.py', 'import numpy as np', 'backbones may import only'),
    ('benchmarks/shifts.py', 'import torch', 'benchmarks may import only'),
    ('evaluation/evaluator.py', 'from mmdet.apis import init_detector', 'only det/ imports mmdet and mmcv'),
    ('datasets/base.py', 'import mmcv', 'only det/ imports mmdet and mmcv'),
    ('cli.py', 'def f():\n    from mmdet.utils import get_device', 'only det/ imports mmdet and mmcv'),
    ('evaluation/evaluator.py', 'from ..det import predictor', 'floor 2 imports from floor 3'),
    ('det/data.py', 'from ..cli import parser', 'floor 3 imports from floor 4'),
    ('report/page.py', 'import torch', 'report may import only'),
    ('report/page.py', 'from ..metrics import attention', 'report knows core and benchmarks only'),
    ('attic/old.py', 'from ..core import spec', 'has no floor yet'),
    ('__init__.py', 'from . import backbones', 'the package itself imports nothing'),
    ('__init__.py', 'import torch', 'the package itself imports nothing'),
])
def test_a_planted_offence_is_found(path, line, words):
    found = offences({path: f'"""A docstring."""\n{line}\n'})
    assert len(found) == 1 and words in found[0]
    assert found[0].startswith(f'{PACKAGE}/{path}:{2 + line.count(chr(10))} imports ')


@pytest.mark.parametrize('path, line', [
    ('core/spec.py', 'import ast, json\nfrom dataclasses import dataclass\nfrom .registry import Registry'),
    ('attacks/base.py', 'import torch\nfrom ..core.spec import Spec\nfrom pit_downstream.attacks import threat'),
    ('metrics/attention.py', 'from ..attention.trace import trace_attention'),
    ('backbones/pit.py', 'import math\nfrom timm.layers import Mlp\nfrom mmengine.model import BaseModule'),
    ('det/__init__.py', 'import mmcv.ops, mmdet, mmengine\nfrom ..evaluation import measure\nfrom . import data'),
    ('report/page.py', 'import matplotlib.pyplot\nfrom ..benchmarks import shifts'),
    ('core/provenance.py', 'from .. import __version__'),
    ('cli.py', 'from pit_downstream.det import runs\nimport torch'),
    ('evaluation/evaluator.py', 'from mmengine.dist import get_rank'),
])
def test_what_is_allowed_passes(path, line):
    assert offences({path: line}) == []


def test_planted_prints_and_cli_users_are_found():
    main = 'def main():\n    print(1)\ndef other():\n    print(2)\n'
    assert stray_prints({'check.py': main}) == ['pit_downstream/check.py:4 prints']
    assert stray_prints({'det/data.py': main}) == ['pit_downstream/det/data.py:2 prints',
                                                   'pit_downstream/det/data.py:4 prints']
    assert cli_users({'benchmarks/speed.py': 'from pit_downstream import cli', 'configs/a.py': 'import torch',
                      'benchmarks/b.py': 'def f():\n    from pit_downstream.cli import flags'}
                     ) == ['benchmarks/speed.py', 'benchmarks/b.py']
