"""Follow README and docs/ line by line, as somebody would who has never seen the project.

python -m tests.readme                 every command and every Python block, after `make demo`
python -m tests.readme --long          those that take minutes, too
python -m tests.readme --list          what would run
python -m tests.readme --only train    those with this word in them

A command must end well. One whose comment says `needs X` asks for data that a fresh clone has not: it must refuse, with
one sentence that says what it expected. One that `needs` GPUs or Slurm is not run, one that `takes` minutes only with
--long. Commands with `make` are run by hand.
"""

import argparse
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / 'README.md', *sorted((ROOT / 'docs').glob('*.md')))
FENCE = re.compile(r'^```(sh|python)\n(.*?)^```$', re.MULTILINE | re.DOTALL)
MACHINES = ('GPU', 'Slurm')


class Step(NamedTuple):
    """language: sh or python. comment: what stands behind a command."""

    language: str
    text: str
    comment: str = ''

    @property
    def needs(self) -> str:
        return self.comment.partition('needs ')[2]

    def runs(self, long: bool = False) -> bool:
        by_hand = self.text.startswith(('make ', 'source '))
        return not by_hand and (long or 'takes ' not in self.comment) and not any(
            word in self.needs for word in MACHINES)


def steps(text: str) -> Iterator[Step]:
    """The commands of `text`, Markdown, one by one, and its blocks of Python, each as a whole."""
    for language, body in FENCE.findall(text):
        if language == 'python':
            yield Step(language, body)
            continue
        for line in body.replace('\\\n', ' ').splitlines():
            command, *comment = re.split(r'\s#', line, maxsplit=1)
            if command.strip():
                yield Step(language, ' '.join(command.split()), ''.join(comment))


def run(step: Step) -> str:
    """What went wrong, or ''."""
    command = ['bash', '-c', f'source .venv/bin/activate && {step.text}'] if step.language == 'sh' else [
        '.venv/bin/python', '-W', 'ignore', '-c', step.text]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    said = f'{done.stdout}{done.stderr}'.strip()
    if not step.needs:
        return f'ended with {done.returncode}: {said[-2000:]}' if done.returncode else ''
    refused = done.returncode != 0 and 'expected' in done.stderr and 'Traceback' not in said
    return '' if refused else f'needs {step.needs}; not refused in one sentence, got {done.returncode}: {said[-2000:]}'


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--list', action='store_true')
    parser.add_argument('--long', action='store_true')
    parser.add_argument('--only', default='', metavar='WORD')
    args = parser.parse_args()
    chosen = [step for page in PAGES for step in steps(page.read_text()) if args.only in step.text]
    failed = 0
    for step in chosen:
        title = step.text.strip().splitlines()[0]
        if args.list or not step.runs(args.long):
            print(f'{"" if step.runs(args.long) else "not run: "}{title}')
            continue
        start = time.perf_counter()
        wrong = run(step)
        failed += bool(wrong)
        said = 'FAILED' if wrong else 'ok'
        print(f'{said} {time.perf_counter() - start:.0f} s: {title}', *filter(None, [wrong]), sep='\n', flush=True)
    return min(failed, 1)


if __name__ == '__main__':
    sys.exit(main())
