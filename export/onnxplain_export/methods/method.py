"""How a method is written down: an entry of explainer.json with what export must know about it."""

from collections.abc import Mapping
from typing import Any


def method(
    about: str,
    graph: str,
    plan: str = "single",
    *,
    beside: tuple[str, ...] = (),
    loop: str = "sum",
    finish: str = "mean",
    explains: str = "logits",
    measures: str = "sensitivity",
    pictures: bool = False,
    **parameters: Mapping[str, Any],
) -> dict[str, Any]:
    """One method: a line about it, its graph (and those `beside` it), plan, loop and finish rules, and parameters.

    `explains` is "logits" or "probabilities", `measures` "sensitivity" or "contribution" (see onnxplain.bundle.Method);
    `pictures` says that it needs an image with rows and columns.
    """
    return {
        "about": about,
        "graph": graph,
        "beside": list(beside),
        "plan": plan,
        "loop": loop,
        "finish": finish,
        "explains": explains,
        "measures": measures,
        "pictures": pictures,
        "parameters": parameters,
    }
