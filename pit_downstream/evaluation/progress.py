"""Progress of an evaluation: a bar in a terminal or notebook, one line a minute elsewhere."""

import sys
import time
from collections.abc import Mapping

from tqdm.auto import tqdm

INTERVAL = 60.  # seconds between lines where stdout is no terminal


class Progress:
    """Progress over images under conditions, with the remaining time weighted by the cost of each kind of condition.

    Args:
        images: Images to evaluate, by title of a pass.
        show: Show it, on rank 0.
    """

    def __init__(self, images: Mapping[str, int], *, show: bool):
        self._remaining, self._show = dict(images), show
        self._seconds: dict[str, float] = {}  # by title, of `_done` images
        self._done: dict[str, int] = {}
        self._total = sum(images.values())
        self._start = self._last_line = time.monotonic()
        self._has_bar = show and (sys.stderr.isatty() or 'ipykernel' in sys.modules)
        self._bar = tqdm(total=self._total, unit='img', disable=not self._has_bar,
                         bar_format='{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}{postfix}]')

    def update(self, title: str, images: int, seconds: float) -> None:
        """Add images of a pass and the seconds that they took."""
        self._remaining[title] = max(0, self._remaining.get(title, 0) - images)
        self._done[title] = self._done.get(title, 0) + images
        self._seconds[title] = self._seconds.get(title, 0.) + seconds
        left = format_seconds(self.estimate_remaining())
        self._bar.set_description(title, refresh=False)
        self._bar.set_postfix_str(f'{left} left', refresh=False)
        self._bar.update(images)
        now = time.monotonic()
        if self._show and not self._has_bar and now - self._last_line >= INTERVAL:
            self._last_line = now
            done = sum(self._done.values())
            sys.stderr.write(f'{title}: {done} of {self._total} images, {format_seconds(now - self._start)} elapsed, '
                             f'about {left} left\n')
            sys.stderr.flush()

    def estimate_remaining(self) -> float:
        """Return the expected remaining seconds. A pass without images so far costs the mean of the others."""
        known = {title: self._seconds[title] / self._done[title] for title in self._done if self._done[title]}
        mean = sum(known.values()) / len(known) if known else 0.
        return sum(images * known.get(title, mean) for title, images in self._remaining.items())

    def close(self) -> None:
        self._bar.close()


def format_seconds(seconds: float) -> str:
    """Return '3:07', or '1:02:30' from an hour up."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f'{hours}:{minutes:02}:{rest:02}' if hours else f'{minutes}:{rest:02}'
