"""A progress bar on stderr: only on a terminal, and only for work that lasts."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

SECONDS_BEFORE_SHOWING = 2.0


class Progress:
    """Counts what is done, on a tqdm bar if there is one."""

    def __init__(self, bar: Any = None) -> None:
        self._bar = bar
        self._done = 0.0

    def add(self, amount: float) -> None:
        """Moves the bar on by a number of images, or a part of one."""
        self._done += amount
        if self._bar is not None:
            self._bar.update(round(self._done, 2) - self._bar.n)


@contextmanager
def progress_bar(wanted: bool, method: str, total: int | None) -> Iterator[Progress]:
    """A Progress over `total` images; silent unless wanted, on a terminal, and past two seconds."""
    if not wanted:
        yield Progress()
        return
    from tqdm import tqdm  # importing the engine loads numpy and onnxruntime alone

    # disable=None: tqdm asks whether stderr is a terminal.
    with tqdm(total=total, desc=method, unit="image", disable=None, delay=SECONDS_BEFORE_SHOWING, leave=False) as bar:
        yield Progress(None if bar.disable else bar)
