"""Page of all results in results.csv, losses included.

python -m speed.summary            writes README.md beside this file
python -m speed.summary --check    exits with 1 if README.md is out of date
"""

import argparse
from collections.abc import Iterable, Iterator
from pathlib import Path

from speed.table import HERE, SECONDS, Comparison, Entry, Spread, read_table

LEAD = '''# Speed and memory

`make bench` measures every row that needs no dataset. `make bench QUICK=1` checks in minutes that every script runs.
`python -m speed.run --help` describes how to pass ImageNet's images, a detector and a classifier. Both sides of a row
ran in one process or in turns, on the same cores. Times are wall times unless the metric is CPU time. Values are
medians, with the smallest and largest run in brackets. [results.csv](results.csv) has every value, the number of runs,
the date and the load of the machine; [machines.json](machines.json) has the versions of the libraries.

**ratio** is the peer's value divided by ours: above 1 is a gain, below 1 is marked as a loss. A bound is a part of our
own work, such as the model's passes, and cannot be beaten; where passes share work a ratio may exceed it slightly.
A commit that ends in + had changes that were committed with the results.

`python -m speed.summary` writes this page; do not edit it.
'''
LOSS = 0.995  # ratios below this are marked; two decimals are printed
METRICS = ('time', 'CPU time', 'memory')
ORDER = ('pit_speed', 'attention_memory', 'reattention', 'padding', 'corruption_speed', 'imagenet_c_overhead',
         'coco_c_speed', 'attack_speed', 'autoattack')


def tables(entries: Iterable[Entry]) -> str:
    """Return Markdown tables of all costs: comparisons, each corruption, training steps."""
    costs = [entry for entry in entries if entry.result.metric in METRICS]
    single = [entry for entry in costs if entry.benchmark == 'corruption_speed' and ' ' not in entry.result.case]
    compared = [entry for entry in costs if entry.result.theirs and entry not in single]
    compared.sort(key=lambda entry: ORDER.index(entry.benchmark))
    columns = ('case', 'setting', 'metric', 'ours', 'peer', 'value of the peer', 'ratio', 'device, threads', 'commit')
    lines = markdown(columns, [
        (one.case, one.setting, one.metric, spread(one.ours, one.unit), one.peer, spread(one.theirs, one.unit),
         ratio(one), device(entry), entry.run.commit) for entry in compared for one in [entry.result]])
    if single:
        lines = [*lines, '', '## Each corruption', '', *markdown(
            ('corruption', 'size', 'ours, ms', 'imagecorruptions, ms', 'ratio', 'device, threads'), [
                (one.case, one.setting, f'{1e3 * one.ours.median:.2f}', f'{1e3 * one.theirs.median:.2f}', ratio(one),
                 device(entry)) for entry in single for one in [entry.result]])]
    steps = [entry for entry in costs if entry.benchmark == 'training_step']
    if steps:
        lines = [*lines, '', '## A training step of a detector', '', *markdown(
            ('config', 'image', 'metric', 'value', 'device, threads', 'commit'), [
                (one.case, one.setting, one.metric, spread(one.ours, one.unit), device(entry), entry.run.commit)
                for entry in steps for one in [entry.result]])]
    return '\n'.join(lines) + '\n'


def markdown(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    """Yield the lines of a Markdown table."""
    columns = tuple(columns)
    for row in (columns, ['---'] * len(columns), *rows):
        yield f'| {" | ".join(row)} |'


def ratio(result: Comparison) -> str:
    mark = ' (bound)' if result.bound else ' **loss**' if result.ratio < LOSS else ''
    return f'{result.ratio:.2f}{mark}'


def spread(values: Spread, unit: str) -> str:
    """Format a median and, for several runs, the smallest and largest, as in '12.3 ms [11.9, 12.8]'."""
    scale, unit = (1e3, 'ms') if unit == SECONDS and values.median < 0.1 else (1, unit)
    limits = f' [{number(scale * values.minimum)}, {number(scale * values.maximum)}]' if values.runs > 1 else ''
    return f'{number(scale * values.median)} {unit}{limits}'


def number(value: float) -> str:
    """Format three significant digits, or a whole number above 999."""
    return f'{value:#.3g}'.removesuffix('.') if value < 999.5 else f'{value:.0f}'


def device(entry: Entry) -> str:
    return f'{entry.run.device}, {entry.run.threads}'


def page() -> str:
    return f'{LEAD}\n{tables(read_table())}'


def write() -> Path:
    path = HERE / 'README.md'
    path.write_text(page())
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--check', action='store_true')
    if not parser.parse_args().check:
        print(write())
    elif (HERE / 'README.md').read_text() != page():
        raise SystemExit('speed/README.md differs from results.csv. Run python -m speed.summary.')


if __name__ == '__main__':
    main()
