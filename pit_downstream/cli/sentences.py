"""How a tool ends: one sentence and exit code 2 for bad input, one line and 130 or 143 for a signal."""

import argparse
import contextlib
import difflib
import errno
import os
import re
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..core.spec import quote
from ..evaluation.slurm import env_rank

PACKAGE = Path(__file__).parents[1]
SIGNALS = {signal.SIGINT: 'interrupted', signal.SIGTERM: 'terminated'}
PLACES = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO,
          errno.ENAMETOOLONG}  # a place that cannot be written or read, wherever a library finds out
LONGEST = 2000  # characters of a sentence

_FRAME = re.compile(r'^  File "(.+)", line \d+, in .+\n    (.+)$', re.MULTILINE)


@contextlib.contextmanager
def one_sentence() -> Iterator[None]:
    """End the tool with exit code 2 and the sentence alone where a `raise` in this package refused an input.

    So it does for a full disk, a place without permission and a killed worker. SIGINT and SIGTERM end it with one line
    and exit code 130 or 143; a second signal ends it at once. Any other error is a bug, ours or a library's: its
    traceback is shown.
    """
    with _raised_signals() as received:
        try:
            yield
        except (ValueError, LookupError, OSError, ImportError, RuntimeError, KeyboardInterrupt) as error:
            if not received:  # a worker that the signal has ended raises another error here
                sentence, one_rank = _sentence(error)
                if sentence is None:
                    raise
                _end(sentence, 2, one_rank=one_rank)
        if received:
            _end(SIGNALS[received[0]], 128 + received[0])


@contextlib.contextmanager
def _raised_signals() -> Iterator[list[signal.Signals]]:
    """Raise KeyboardInterrupt for SIGINT and SIGTERM, and list them. Workers leave SIGINT to their parent."""
    received: list[signal.Signals] = []
    owner = os.getpid()

    def note(number, frame):
        if os.getpid() != owner:  # a forked worker, which Ctrl-C reaches, too
            if number == signal.SIGTERM:
                os._exit(128 + number)
            return
        received.append(signal.Signals(number))
        for each in SIGNALS:
            signal.signal(each, signal.SIG_DFL)
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    before = {number: signal.signal(number, note) for number in SIGNALS}
    try:
        yield received
    finally:
        if not received:
            for number, handler in before.items():
                signal.signal(number, handler)


def _end(sentence: str, code: int, *, one_rank: bool = False) -> None:
    """Print the sentence once where all ranks have the same, from `one_rank` where that alone may have it."""
    if env_rank() == 0 or one_rank:
        print(_shorten(sentence), file=sys.stderr, flush=True)
    raise SystemExit(code)


def _shorten(sentence: str) -> str:
    """Cut long quotes to their first 200 characters, other long words, such as paths, to the first and last 100."""
    sentence = re.sub(r"""(['"])((?:(?!\1).){200})(?:(?!\1).)+\1""", r'\1\2\1...', sentence, flags=re.DOTALL)
    sentence = re.sub(r"""([^\s'"]{100})[^\s'"]{10,}([^\s'"]{100})""", r'\1...\2', sentence)
    return sentence if len(sentence) <= LONGEST else f'{sentence[:LONGEST]}...'


def _sentence(error: BaseException) -> tuple[str | None, bool]:
    """The sentence for the user, None for a bug; and whether other ranks may not have the error."""
    place: BaseException | None = error
    while place is not None:  # torch.save raises a RuntimeError while it handles the OSError
        if isinstance(place, OSError) and place.errno in PLACES:
            what = f'cannot use {place.filename}: {place.strerror}' if place.filename else place.strerror
            return f'{what}. Free space, change permissions or name another place.', True
        place = place.__context__
    text = str(error.args[0]) if error.args else str(error)
    if text.startswith('DataLoader worker'):
        return ('a worker process that loads data was killed, usually because memory or /dev/shm is too small. Use '
                f'fewer workers or smaller batches. ({text[:200]})'), True
    if found := list(_FRAME.finditer(text)):  # a worker's error, whose text is its traceback
        message = re.search(r'^[\w.]+: (.*)', text[found[-1].end():], re.MULTILINE | re.DOTALL)
        return message[1].strip() if message and _is_refusal(*found[-1].groups()) else None, True
    innermost = traceback.extract_tb(error.__traceback__)[-1]
    return text if _is_refusal(innermost.filename, innermost.line or '') else None, False


def _is_refusal(filename: str, line: str) -> bool:
    return PACKAGE in Path(filename).parents and line.startswith('raise ')


def require_places(args: argparse.Namespace) -> None:
    """Raise ValueError, before any work, where results, images or records could not be written."""
    from ..core.outputs import require_file_to_write, require_folder_to_write
    for names, require in ((('store', 'cache', 'save', 'save_images'), require_folder_to_write),
                           (('csv', 'json'), require_file_to_write)):
        for name in names:
            if place := getattr(args, name, None):
                require(place, f'--{name.replace("_", "-")}')
    results = Path(args.store) / 'results.jsonl'
    if results.exists() and not results.is_file():
        raise ValueError(f'expected a file of records, got {results}, which is none; name another --store')


def require_image_to_write(path: str | Path, flag: str) -> None:
    """Raise ValueError unless an image file can be written to `path`, in a folder that is there or can be made."""
    from PIL import Image

    from ..core.outputs import require_folder_to_write
    path, suffixes = Path(path), Image.registered_extensions()
    if suffixes.get(path.suffix.lower()) not in Image.SAVE or path.is_dir():
        raise ValueError(f'expected an image file to write for {flag}, got {path}; name one like detections.png')
    require_folder_to_write(path.parent, flag)


def require_name(name: str, names: Sequence[str], noun: str) -> None:
    """Raise LookupError with the nearest names unless `name` is one of `names`."""
    if name not in names:
        near = difflib.get_close_matches(name, names, n=3, cutoff=0.4) or names
        raise LookupError(f'no {noun} named {quote(name)}; did you mean {", ".join(near)}?')


def require_folder(folder: str, flag: str) -> None:
    if not Path(folder).is_dir():
        raise FileNotFoundError(f'expected pictures in {folder}, found no such folder; name another with {flag} DIR '
                                '(data/README.md says how they lie there)')
