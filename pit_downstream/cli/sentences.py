"""One sentence for bad input, before any work is done."""

import argparse
import contextlib
import difflib
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path

PACKAGE = Path(__file__).parents[1]


@contextlib.contextmanager
def one_sentence() -> Iterator[None]:
    """End the tool with exit code 2 and the sentence alone where a `raise` in this package refused an input.

    Any other error is a bug, ours or a library's: its traceback is shown.
    """
    try:
        yield
    except (ValueError, LookupError, OSError, ImportError, RuntimeError) as error:
        innermost = traceback.extract_tb(error.__traceback__)[-1]
        if PACKAGE not in Path(innermost.filename).parents or not innermost.line.startswith('raise '):
            raise
        if os.environ.get('RANK', '0') == '0':  # of torchrun's processes one speaks
            print(error.args[0], file=sys.stderr)
        sys.exit(2)


def require_places(args: argparse.Namespace) -> None:
    """Raise ValueError, before any work, where results, images or records could not be written."""
    from ..core.outputs import require_file_to_write, require_folder_to_write
    for names, require in ((('store', 'cache', 'save', 'save_images'), require_folder_to_write),
                           (('csv', 'json'), require_file_to_write)):
        for name in names:
            if place := getattr(args, name, None):
                require(place, f'--{name.replace("_", "-")}')
    if (Path(args.store) / 'results.jsonl').is_dir():
        raise ValueError(f'expected records in {args.store}/results.jsonl, got a folder of that name; name another '
                         '--store')


def require_name(name: str, names: Sequence[str], noun: str) -> None:
    """Raise LookupError with the nearest names unless `name` is one of `names`."""
    if name not in names:
        near = difflib.get_close_matches(name, names, n=3, cutoff=0.4) or names
        raise LookupError(f'no {noun} named {name!r}; did you mean {", ".join(near)}?')


def require_folder(folder: str, flag: str) -> None:
    if not Path(folder).is_dir():
        raise FileNotFoundError(f'expected pictures in {folder}, found no such folder; name another with {flag} DIR '
                                '(data/README.md says how they lie there)')
