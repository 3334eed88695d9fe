"""The engine's procedures: what runs a method's graphs. Most methods are a sum over steps; the others are thin loops.

To add one, write a function `(work) -> float32 [N, T, …]` in the family's file and decorate it with `@loop("name")`.
"""

from onnxplain.loops import (  # noqa: F401 (imported for the loops that they register)
    blur_path,
    cam,
    fastestimator,
    guided_path,
    noisy,
    paths,
    perturbation,
    single,
    summed,
    xrai,
)
from onnxplain.loops.registry import LOOPS, find_loop, loop

__all__ = ["LOOPS", "find_loop", "loop"]
