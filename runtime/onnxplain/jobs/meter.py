"""How a running job is told of: a bar on a terminal, a line now and then in a log."""

import sys
import threading
import time
from typing import Any

LINE_EVERY = 30.0


class Meter:
    """Counts pictures, explained and failed, and says how fast they go and when the end is to be expected.

    `done` pictures of `total` were there already. On a terminal it is a tqdm bar; elsewhere a plain line on stderr,
    the first after `LINE_EVERY` seconds. `shown` False keeps it silent.
    """

    def __init__(self, total: int | None, done: int, shown: bool) -> None:
        self.explained = self.failed = 0
        self._total, self._before, self._shown = total, done, shown
        self._begun = self._said = time.monotonic()
        self._lock = threading.Lock()
        self._bar: Any = None
        if shown and sys.stderr.isatty():
            from tqdm import tqdm  # importing the engine loads numpy and onnxruntime alone

            self._bar = tqdm(total=total, initial=done, unit="picture", smoothing=0.05)

    def add(self, explained: int, failed: int) -> None:
        """Notes what has become of some pictures."""
        with self._lock:
            self.explained += explained
            self.failed += failed
            if self._bar is not None:
                self._bar.update(explained + failed)
                self._bar.set_postfix(failed=self.failed)
            elif self._shown and time.monotonic() - self._said >= LINE_EVERY:
                self._said = time.monotonic()
                print(f"onnxplain: {self.line()}", file=sys.stderr, flush=True)

    def line(self) -> str:
        """Where things stand, in words."""
        new, seconds = self.explained + self.failed, time.monotonic() - self._begun
        rate = new / seconds if seconds > 0 else 0.0
        done = self._before + new
        of = "" if self._total is None else f" of {self._total:,}"
        left = ""
        if self._total is not None and rate > 0:
            left = f", {duration((self._total - done) / rate)} left"
        return f"{done:,}{of} pictures, {rate:.3g} a second{left}, {self.failed:,} failed"

    def close(self) -> None:
        """Takes the bar away."""
        if self._bar is not None:
            self._bar.close()


def duration(seconds: float) -> str:
    """A time as a person reads it."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
