"""Ten classes of each picture: explained at once, and one after the other."""

from typing import Any

from bench_rounds import Timing, settled
from bench_statistics import agrees, median, ratio
from bench_subject import Subject

PICTURES, TARGETS = 2, 10
TOGETHER, SAME, APART = "at once", "at once again", "one by one"


def measure(subject: Subject, timing: Timing) -> dict[str, Any]:
    """Ten targets at once ÷ ten separate calls."""
    rows = subject.array[:PICTURES]
    one, other, third = (subject.explainer("gradient") for _ in range(3))
    classes = list(range(TARGETS))
    several = [classes] * len(rows)
    contenders = {
        TOGETHER: lambda: one.explain(rows, "gradient", several),
        SAME: lambda: other.explain(rows, "gradient", several),
        APART: lambda: [third.explain(rows, "gradient", target) for target in classes],
    }
    seconds, attempts = settled(contenders, timing, TOGETHER, SAME)
    ratios = {f"{SAME} ÷ {TOGETHER}": ratio(seconds, SAME, TOGETHER)}
    ratios[f"ten targets {TOGETHER} ÷ {APART}"] = ratio(seconds, TOGETHER, APART)
    void = not agrees(seconds, TOGETHER, SAME)
    medians = {name: median(values) for name, values in seconds.items()}
    return {"seconds": medians, "ratios": ratios, "attempts": attempts, "void": void}
