"""tools/make_report.py as its user runs it: quick, without torch, and with one sentence for bad input."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pit_downstream.utils.registry import SECTIONS
from tests.report import stores

TOOL = Path(__file__).parents[2] / 'tools' / 'make_report.py'


@pytest.fixture
def run(tmp_path, monkeypatch, in_process):
    """run(*flags) -> (exit code, stdout, stderr), in this process and in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def ran(*flags):
        return in_process(TOOL.name, *flags)
    return ran


def test_a_report_without_torch(tmp_path):
    stores.write_store(tmp_path / 'store', stores.attacked(stores.ALEX))
    script = ('import runpy, sys; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name="__main__"); '
              'print(sorted({"torch", "mmengine", "mmdet", "PIL.ImageTk"} & set(sys.modules)))')
    done = subprocess.run([sys.executable, '-c', script, str(TOOL), 'store', '--output', 'page.html'], cwd=tmp_path,
                          capture_output=True, text=True, timeout=280, check=True,
                          env={'PYTHONPATH': str(TOOL.parents[1]), 'PATH': '/usr/bin:/bin', 'HOME': str(tmp_path)})
    assert done.stdout.splitlines()[-4:] == ['page.html', 'page.json', 'page.csv', '[]']
    assert done.stdout.startswith('missing: alex: ImageNet-C not measured\n'
                                  '    pit-downstream eval-imagenet-c --model alex\n')


def test_figures_and_tables_alone(run, tmp_path):
    stores.write_store(tmp_path / 'store', stores.attacked(stores.ALEX))
    code, out, err = run('store/results.jsonl', 'store', '--figures', 'store/figures', '--tables', 'tables',
                         '--title', 'Mine')
    assert (code, err) == (0, '') and out.splitlines()[-5:] == ['report.html', 'report.json', 'report.csv',
                                                              'store/figures', 'tables']
    figures = json.loads(Path('report.json').read_text())['sections']['adversarial']['figures']
    for name in figures:
        assert (tmp_path / f'store/figures/{name}.svg').read_text().count('#0b66b0') > 0
        assert (tmp_path / f'store/figures/{name}.png').read_bytes().startswith(b'\x89PNG')
    assert (tmp_path / 'tables/adversarial.tex').read_text().startswith(r'\begin{table}')
    rows = [' '.join(line.split()) for line in (tmp_path / 'tables/adversarial.md').read_text().splitlines()]
    assert any(row.startswith('| alex | fgsm | Linf | 4/255 | 50.0 (') for row in rows)
    assert '<title>Mine</title>' in Path('report.html').read_text()
    assert run('store', '--figures', 'store/figures')[0] == 0  # its own figures are no images of the next report
    assert '<img' not in Path('report.html').read_text()


@pytest.mark.parametrize('flags, sentence', [
    (['absent'], 'no results, logs or folders of them: absent. Pass paths that exist.'),
    (['.'], 'no records, logs, speed results or images in .. Pass results.jsonl files, folders with them, or work '
            'dirs.'),
    (['.', '--output', 'report.json'],
     '--output must be an HTML file, got report.json. Pass a name like report.html.'),
    (['.', '--output', 'no/report.html'], 'expected a file to write for --output in a folder that is there, got '
                                       'no/report.html; make the folder no or name another one'),
])
def test_one_sentence_for_bad_input(run, flags, sentence):
    assert run(*flags) == (2, '', sentence + '\n')


def test_a_reference_that_was_not_measured(run, tmp_path):
    stores.write_store(tmp_path / 'store', stores.attacked(stores.ALEX))
    code, _, err = run('store', '--reference', 'alix')
    assert code == 2 and err == "no single model named 'alix' in these records. Did you mean 'alex'?\n"


def test_custom_section(run, tmp_path, monkeypatch):
    """One function under a name; it comes after the project's own."""
    monkeypatch.setattr(SECTIONS, '_entries', SECTIONS._entries.copy())
    monkeypatch.setattr('sys.path', sys.path.copy())
    stores.write_store(tmp_path / 'store', stores.attacked(stores.ALEX))
    (tmp_path / 'my_sections.py').write_text('''
from pit_downstream.utils.registry import SECTIONS
from pit_downstream.report.parts import Section
from pit_downstream.results.tables import Sheet, count

@SECTIONS.register('mine')
def build_mine(data):
    sheet = Sheet('count', 'Tables.', ('tables',), ((count(len(data.entries)),),))
    return Section('mine', 'Mine', 'A lead.', (sheet,))
''')
    assert run('store', '--import', 'my_sections')[0] == 0
    found = json.loads(Path('report.json').read_text())['sections']
    assert list(found)[-1] == 'mine' and found['mine']['tables']['count']['rows'] == [[{'text': '1', 'value': 1}]]
