"""Model zoo page: models trained here, models not trained, and published results, from model-index.yml and configs/.

python -m speed.zoo            writes docs/zoo.md
"""

import ast
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
PAGE = ROOT / 'docs' / 'zoo.md'
NOT_HERE = 'not trained here'
BUNDLED = 'bundled'  # the dataset of --bundled
LEAD = '''# Model zoo

No weights are published. All values are percentages. The column "published" has results of the
cited papers and repositories, trained with their code and recipes. MACs are those of
`pit-downstream get-complexity` at the native size. Every config in `configs/` has a row.

`python -m speed.zoo` writes this page from [model-index.yml](../model-index.yml). Do not edit it.
'''


def index() -> dict:
    """Return model-index.yml: {'Collections': [...], 'Models': [...]}."""
    return yaml.safe_load((ROOT / 'model-index.yml').read_text())


def page() -> str:
    models = index()['Models']
    trained, others = ([one for one in models if bool(one.get('Results')) is kind] for kind in (True, False))
    known = {one.get('Config') for one in models if one['Metadata'].get('Training Data') != BUNDLED}
    rest = [path for path in sorted((ROOT / 'configs').glob('*.py')) if f'configs/{path.name}' not in known]
    parts = {
        'Trained here': table(('model', 'config', 'data', 'result', 'cost', 'command'), map(trained_row, trained)),
        'ImageNet classifiers': table(
            ('model', 'config', 'parameters', 'MACs', 'status', 'published', 'source'), map(other_row, others)),
        'Other configs': table(('config', 'description', 'status'), map(config_row, rest))}
    return '\n'.join([LEAD, *('\n'.join([f'## {name}', '', *lines, '']) for name, lines in parts.items())])


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    """Yield the lines of a Markdown table."""
    head = tuple(head)
    for row in (head, ['---'] * len(head), *rows):
        yield f'| {" | ".join(row)} |'


def trained_row(model: dict) -> Iterator[str]:
    about = model['Metadata']
    yield from (model['Name'], link(model))
    yield '; '.join(result['Dataset'] for result in model['Results'])
    yield '; '.join(said(result['Metrics']) for result in model['Results'])
    yield f'{about["Epochs"]} epochs, {spent(about["Training Time"])} on {about["Training Resources"]}'
    yield f'`{model["Command"]}`' if model['Command'].startswith('python') else model['Command']



def spent(time: str) -> str:
    return 'time not measured,' if time == 'not measured' else time


def other_row(model: dict) -> Iterator[str]:
    about = model['Metadata']
    yield from (model['Name'], link(model), f'{about["Parameters"] / 1e6:.1f} M', f'{about["MACs"] / 1e9:.2f} G')
    yield NOT_HERE
    yield '; '.join(said(one['Metrics']) for one in model['Published'])
    yield '; '.join(one['Source'] for one in model['Published'])


def config_row(path: Path) -> tuple[str, str, str]:
    first = ast.get_docstring(ast.parse(path.read_text())).splitlines()[0]
    return f'[{path.name}](../configs/{path.name})', re.sub(r'[.:]$', '', first), NOT_HERE


def link(model: dict) -> str:
    return f'[{Path(model["Config"]).name}](../{model["Config"]})' if 'Config' in model else ''


def said(metrics: dict[str, float]) -> str:
    return ', '.join(f'{name} {value}' for name, value in metrics.items())


if __name__ == '__main__':
    PAGE.write_text(page())
    print(PAGE)
