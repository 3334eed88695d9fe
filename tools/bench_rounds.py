"""Times contenders in turns: a round has every one of them once, in an order that is drawn anew."""

import gc
import math
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from bench_statistics import agrees, ratio

Contender = Callable[[], object]

# onnxruntime's threads go on spinning for 40 ms after a run, on a core that the next contender wants.
SETTLE = 0.06
ATTEMPTS = 3
LEAST_SECONDS = 0.1  # of one timing; what is quicker is repeated


@dataclass(frozen=True, slots=True)
class Timing:
    """How long to measure: `rounds` of them, but no more than `least` once `seconds` are over."""

    rounds: int
    least: int = 20
    seconds: float = math.inf
    warmup: int = 2


def settled(
    contenders: Mapping[str, Contender], timing: Timing, one: str, same: str
) -> tuple[dict[str, list[float]], int]:
    """The seconds of the first attempt in which `one` and `same` agree, or of the last one, and the attempts."""
    attempts = 0
    while attempts < ATTEMPTS:
        seconds, attempts = timed(contenders, timing), attempts + 1
        if agrees(seconds, one, same):
            break
        print(f"  void: {same} ÷ {one} is {ratio(seconds, same, one)['median']:.3f}", flush=True)
    return seconds, attempts


def timed(contenders: Mapping[str, Contender], timing: Timing) -> dict[str, list[float]]:
    """The seconds that one call of each contender took, round by round."""
    repeats = {name: _repeats(run, timing.warmup) for name, run in contenders.items()}
    order, draw = list(contenders), random.Random(0)
    seconds: dict[str, list[float]] = {name: [] for name in order}
    started = time.perf_counter()
    gc.collect()
    gc.disable()
    try:
        for done in range(timing.rounds):
            if done >= timing.least and time.perf_counter() - started > timing.seconds:
                break
            draw.shuffle(order)
            for name in order:
                seconds[name].append(_once(contenders[name], repeats[name]))
            gc.collect()
    finally:
        gc.enable()
    return seconds


def _repeats(run: Contender, warmup: int) -> int:
    """Warms a contender up, and returns how many calls of it make one timing."""
    for _ in range(max(1, warmup)):
        before = time.perf_counter()
        run()
        took = time.perf_counter() - before
    return max(1, math.ceil(LEAST_SECONDS / max(took, 1e-6)))


def _once(run: Contender, repeats: int) -> float:
    time.sleep(SETTLE)
    before = time.perf_counter()
    for _ in range(repeats):
        run()
    return (time.perf_counter() - before) / repeats
