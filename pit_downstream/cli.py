"""What the tools share: flags, and one sentence for bad input."""

import argparse
import contextlib
import difflib
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

PACKAGE = Path(__file__).parent
warnings.filterwarnings('ignore', message='pkg_resources is deprecated')  # mmengine imports it; setup.py pins it


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
        print(error.args[0], file=sys.stderr)
        sys.exit(2)


def detector_parser(description: str) -> argparse.ArgumentParser:
    """The flags that training and testing a detector share, as mmdet's users know them."""
    from mmengine.config import DictAction
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config file')
    parser.add_argument('--work-dir', help='where logs and checkpoints go (default: work_dirs/<config name>)')
    parser.add_argument('--bundled', action='store_true', help='use the data set that comes with the project')
    parser.add_argument('--data', metavar='DIR', help='where the data set lies, in place of the data_root of the config')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, default={}, metavar='KEY=VALUE',
                        help='override settings of the config, e.g. train_dataloader.batch_size=4')
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)
    return parser


def require_name(name: str, names: Sequence[str], noun: str) -> None:
    """Raise LookupError with the nearest names unless `name` is one of `names`."""
    if name not in names:
        near = difflib.get_close_matches(name, names, n=3, cutoff=0.4) or names
        raise LookupError(f'no {noun} named {name!r}; did you mean {", ".join(near)}?')
