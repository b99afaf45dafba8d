"""Commands and Python blocks in README and docs/.

The comment of a command may contain `needs X`, for data, GPUs or Slurm that a fresh clone does not have, or `takes X`,
for a command that runs for minutes.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / 'README.md', *sorted((ROOT / 'docs').rglob('*.md')))
FENCE = re.compile(r'^```(sh|python)\n(.*?)^```$', re.MULTILINE | re.DOTALL)
MACHINES = ('GPU', 'Slurm')


class Step(NamedTuple):
    """A command with the comment after it (language sh), or a block of Python (language python)."""

    language: str
    text: str
    comment: str = ''

    @property
    def needs(self) -> str:
        return self.comment.partition('needs ')[2]

    def is_run(self) -> bool:
        """Return whether `make test-slow` runs the step: not `make` or `pip`, minutes of work, or other machines."""
        return not self.text.startswith(('make ', 'pip ', 'source ')) and 'takes ' not in self.comment and not any(
            word in self.needs for word in MACHINES)


def steps(text: str) -> Iterator[Step]:
    """Yield each command and each Python block of `text`, which is Markdown."""
    for language, body in FENCE.findall(text):
        if language == 'python':
            yield Step(language, body)
            continue
        for line in body.replace('\\\n', ' ').splitlines():
            command, *comment = re.split(r'\s#', line, maxsplit=1)
            if command.strip():
                yield Step(language, ' '.join(command.split()), ''.join(comment))
