"""A call of explain, checked before a picture is read: which method runs, with which parameters."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from onnxplain.bundle import EXPLAINS, Bundle, Method
from onnxplain.errors import ParameterError, unknown
from onnxplain.images import Image
from onnxplain.parameters import check_parameters
from onnxplain.presets import apply_preset, split_method
from onnxplain.result import Result, plain_parameters
from onnxplain.tolerance import find_tolerance

# Loops that explain scores without a graph that takes `activated`: probability or logit is the engine's own choice.
SCORING = frozenset({"scorecam", "ablation_cam", "recipro_cam"})


@dataclass(frozen=True, slots=True)
class Request:
    """A checked call of explain: what to run, with which parameters."""

    method: Method
    parameters: Mapping[str, Any]
    explains: str
    memory: float | str | None = None
    top: int | None = None
    cotangent: Any = None
    tolerance: float | None = None


@dataclass(frozen=True, slots=True)
class Prepared:
    """Some methods of a bundle, ready to explain images: see Explainer.prepared.

    A run of each takes so many images `together` at most.
    """

    requests: Sequence[Request]
    together: Sequence[int]
    _explain: Callable[[Sequence[Request], Sequence[Image], Any], list[Result]]

    def __call__(self, batch: Sequence[Image], targets: Any = None) -> list[Result]:
        """A result of each method."""
        return self._explain(self.requests, batch, targets)

    def plain(self) -> dict[str, dict[str, Any]]:
        """The methods, their parameters and what they explain, as provenance holds them."""
        return {
            request.method.name: {"parameters": plain_parameters(request.parameters), "explains": request.explains}
            for request in self.requests
        }


def request_of(
    bundle: Bundle,
    method: str | None,
    given: Mapping[str, Any],
    *,
    memory: float | str | None = None,
    score: str | None = None,
    top: int | None = None,
    cotangent: Any = None,
    preset: str | None = None,
    tolerance: float | None = None,
) -> Request:
    """The checked call of a bundle's method (None: its usual one) with the given parameters; raises ParameterError."""
    method = bundle.usual_method if method is None else method
    if not isinstance(method, str):
        raise ParameterError(unknown("method", str(method), bundle.methods))
    name, preset = split_method(method, preset)
    if name not in bundle.methods:
        raise ParameterError(no_method(bundle, name))
    chosen = apply_preset(bundle.methods[name], preset)
    if score is not None and score not in EXPLAINS:
        raise ParameterError(unknown("score", str(score), EXPLAINS))
    if score is not None and not takes_score(bundle, name):
        raise ParameterError(f"score= is for perturbation methods; {method} explains the {chosen.explains}")
    if tolerance is not None:
        how = find_tolerance(chosen, bundle.methods.values(), tolerance)
        given = {how.limit: how.most, **given}
    checked = check_parameters(chosen, given)
    if checked.get("layer") == "":
        # By name, so that whoever reads the provenance knows which.
        checked["layer"] = next((layer.name for layer in bundle.layers if layer.default), "")
    return Request(chosen, checked, score or chosen.explains, memory, top, cotangent, tolerance)


def takes_score(bundle: Bundle, method: str) -> bool:
    """Whether a method can explain the logit as well as the probability: it takes scores, not gradients."""
    entry = bundle.methods[split_method(method, None)[0]]
    return bundle.graphs[entry.graph].takes("activated") or entry.loop in SCORING


def no_method(bundle: Bundle, name: str) -> str:
    """Why a bundle doesn't have a method, and what to do."""
    if name in bundle.left_out:
        return f"the bundle has no {name}: {bundle.left_out[name]}"
    if name == "rise_plus":
        return f"rise_plus needs a detector; train one: onnxplain detector {bundle.path} --data PICTURES"
    text = unknown("method", name, bundle.methods)
    return f"{text}{'' if text.endswith('?') else '.'} Which methods a bundle has is chosen at export (--methods)"
