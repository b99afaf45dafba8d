"""README and docs/: flags exist, Python parses, links resolve. `make test-slow` also runs every command."""

import ast
import importlib
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.readme import PAGES, ROOT, Step, steps

LINKED = (*PAGES, *(ROOT / name for name in (
    'CHANGELOG.md', 'CONTRIBUTING.md', 'data/README.md', 'docs/results/README.md', 'speed/README.md')))
STEPS = [step for page in PAGES for step in steps(page.read_text())]
TOOL = r'tools/(\w+)\.py|(pit-downstream)'
TOOLS = [step for step in STEPS if step.language == 'sh' and any(
    re.fullmatch(TOOL, word) for word in step.text.split())]


def anchors(page):
    heads = re.findall(r'^#+ (.*)$', page.read_text(), re.MULTILINE)
    return {re.sub(r'[^\w\- ]', '', head).lower().replace(' ', '-') for head in heads}


def test_commands_are_read_with_their_comments():
    text = "```sh\nrun a \\\n    --b 'c  d'   # needs COCO\n\nmake demo   # by hand\n```\n```python\nx = 1\n\n```\n"
    assert list(steps(text)) == [Step('sh', "run a --b 'c d'", ' needs COCO'), Step('sh', 'make demo', ' by hand'),
                                 Step('python', 'x = 1\n\n')]
    assert [step.needs for step in steps(text)] == ['COCO', '', '']
    assert [step.is_run() for step in steps(text)] == [True, False, True]


@pytest.mark.parametrize('step', TOOLS, ids=lambda step: step.text[:70])
def test_every_flag_exists(step):
    words = shlex.split(step.text)
    start, name = next((i, found[1] or found[2]) for i, word in enumerate(words) if (found := re.fullmatch(TOOL, word)))
    if name == 'pit-downstream':
        start, name = start + 1, words[start + 1].replace('-', '_')
    importlib.import_module(f'pit_downstream.cli.{name}').make_parser().parse_args(words[start + 1:])


def test_python_parses():
    blocks = [step.text for step in STEPS if step.language == 'python']
    assert blocks and all(ast.parse(block) for block in blocks)


@pytest.mark.parametrize('page', LINKED, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_resolve(page):
    text = re.sub(r'```.*?```', '', page.read_text(), flags=re.DOTALL)
    for link in re.findall(r'\]\((?!http)([^)\s]+)\)', text):
        path, _, anchor = link.partition('#')
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_readme_has_at_most_1500_words_and_pages_wrap_at_100():
    """Tables, headings, images and output blocks (fences without a language) keep their width."""
    assert len((ROOT / 'README.md').read_text().split()) <= 1500
    fence = re.compile(r'^```(\w*)\n.*?^```$', re.DOTALL | re.MULTILINE)
    texts = {page.name: fence.sub(lambda block: block[0] if block[1] else '', page.read_text()) for page in PAGES}
    long = [f'{name}: {line}' for name, text in texts.items() for line in text.splitlines()
            if len(line) > 100 and not line.startswith(('|', '#', '!'))]
    assert long == []


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_rows_of_a_table_have_as_many_cells_as_its_head(page):
    text = re.sub(r'```.*?```', '', page.read_text(), flags=re.DOTALL)
    for rows in re.findall(r'(?:^\|.*\n)+', text, re.MULTILINE):
        head, *rest = rows.splitlines()
        assert [row for row in rest if row.count('|') != head.count('|')] == []


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    """Run a command or Python block in a folder with our tools and what `make demo` writes, from a short training."""
    folder = tmp_path_factory.mktemp('documentation')
    for name in ('configs', 'docs', 'speed', 'tools', 'model-index.yml'):
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, folder / name)
    environment = {**os.environ, 'PATH': os.pathsep.join((str(Path(sys.executable).parent), os.environ['PATH'])),
                   'PYTHONPATH': str(ROOT)}

    def run_step(step):
        command = ['bash', '-c', step.text] if step.language == 'sh' else [
            sys.executable, '-W', 'ignore', '-c', step.text]
        return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)

    for command in (
            'python -m pit_downstream.datasets.shapes data/shapes',
            'python -m pit_downstream.datasets.shapes data/shapes_faint --contrast 0.3',
            'python tools/train.py configs/retinanet_pit_ti.py --bundled --work-dir work_dirs/demo/retinanet '
            '--cfg-options train_cfg.max_epochs=1',
            'python tools/train_classifier.py configs/cifar10_pit_ti.py --bundled --work-dir work_dirs/demo/classifier '
            '--cfg-options train_cfg.max_epochs=1'):
        done = run_step(Step('sh', command))
        assert done.returncode == 0, f'{command}\n{done.stderr}'
    return run_step


@pytest.mark.slow
@pytest.mark.timeout(1800)  # the first one trains two models
@pytest.mark.parametrize('step', [step for step in STEPS if step.is_run()], ids=lambda step: step.text.strip()[:70])
def test_step_runs_or_reports_missing_data(run, step):
    """A step that needs data which a fresh clone does not have is rejected with one sentence."""
    done = run(step)
    output = done.stdout + done.stderr
    assert done.returncode == (2 if step.needs else 0), output
    assert not step.needs or done.stderr.strip() and 'Traceback' not in output, output
