"""What `onnxplain explain --tolerance` says of the steps that it took, and of maps that missed the tolerance."""

from dataclasses import dataclass, field

import numpy as np

from onnxplain.messages import say
from onnxplain.result import Result


@dataclass(slots=True)
class Efforts:
    """The steps of each map that a tolerance was asked for, by method, and the errors of those that missed it."""

    steps: dict[str, list[int]] = field(default_factory=dict)
    missed: dict[str, list[float]] = field(default_factory=dict)

    def note(self, result: Result) -> None:
        """Takes note of one picture's result."""
        if result.errors is None:
            return
        self.steps.setdefault(result.method, []).append(int(result.steps[0]))
        if not result.converged.all():
            self.missed.setdefault(result.method, []).append(float(np.max(result.errors[0])))

    def report(self) -> None:
        """Prints a line for each method, and a warning where maps stayed short of the tolerance."""
        for method, steps in self.steps.items():
            print(f"{method}: {min(steps)} to {max(steps)} steps a picture, {np.mean(steps):.0f} on average")
        for method, errors in self.missed.items():
            worst = f"up to {max(errors):.3g}" if np.isfinite(max(errors)) else "unknown"
            say(
                f"warning: {len(errors)} of {len(self.steps[method])} maps of {method} took all the steps they may "
                f"before the tolerance was met; their estimated errors are {worst}. Give more steps, or a larger one"
            )
