"""When to use which method: a sentence each, printed only where the measured figures bear it out."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Results = Mapping[str, Any]
Claim = Callable[[str, Results], bool]

# A map that correlates so with one of a network that has learned nothing shows the picture, not the network.
FAILS = 0.5
# Half of 1 − the correlation of the best and the worst class's maps: below this they are the same to the eye.
ALIKE = 0.1
FAILING = "nothing rests on it: the map stays alike when the network's weights are re-drawn"
FOR_ANY_CLASS = "the class doesn't matter: best and worst class have the same map"


def verdict(figures: Mapping[str, Any]) -> str:
    """Whether the map follows the weights: by its mean correlation with maps of ever more re-drawn networks.

    It fails where the interval lies above FAILS, and passes where it lies below.
    """
    found = figures["networks"].get("honest", {}).get("randomisation")
    if not found:
        return "–"
    mean = found["mean"]
    word = "**fails**" if mean["low"] > FAILS else "unsure" if mean["high"] > FAILS else "passes"
    return f"{word} ({mean['mean']:.2f})"


def advice(method: str, results: Results) -> str:
    """The method's sentence if all its claims hold, what the checks found where it fails one, else a dash."""
    if verdict(results["methods"][method]).startswith("**"):
        return FAILING
    if _metric(method, results, "honest", "class_sensitivity") < ALIKE:
        return FOR_ANY_CLASS if finds(1.5)(method, results) else "–"
    if method not in ADVICE:
        return "–"
    return ADVICE[method].text if not unsupported(method, results) else "–"


def unsupported(method: str, results: Results) -> list[str]:
    """The claims behind a method's sentence that the figures don't bear out."""
    return [name for name, claim in ADVICE[method].claims.items() if not claim(method, results)]


@dataclass(frozen=True)
class Advice:
    """A sentence and the claims that it makes, by name."""

    text: str
    claims: Mapping[str, Claim]


def exact(*networks: str) -> Claim:
    """The map is the exact one, to float32's rounding, on these networks in closed form."""

    def claim(method: str, results: Results) -> bool:
        found = [_network(method, results, name).get("exact") for name in networks]
        return all(one is not None and one["error"] <= 1e-4 for one in found)

    return claim


def finds(times: float) -> Claim:
    """So many times as much of the map lies where each shipped network looks as chance would put there."""

    def claim(method: str, results: Results) -> bool:
        return all(
            _metric(method, results, name, "relevance_mass", "low") >= times * results["chance"][name][part]
            for name, part in (("honest", "digit"), ("shortcut", "patch"))
        )

    return claim


def points(share: float) -> Claim:
    """The highest pixel lies where the network looks, on this share of the pictures of both shipped networks."""

    def claim(method: str, results: Results) -> bool:
        return all(_metric(method, results, name, "pointing_game") >= share for name in ("honest", "shortcut"))

    return claim


def at_most(figure: str, limit: float) -> Claim:
    """The cost is no more: "time" as a multiple of the gradient's, "gradient" or "forward" passes."""

    def claim(method: str, results: Results) -> bool:
        return results["methods"][method].get("cost", {}).get(figure, float("inf")) <= limit

    return claim


def below(network: str, metric: str, limit: float) -> Claim:
    """The metric's mean is lower."""
    return lambda method, results: _metric(method, results, network, metric) < limit


def above(network: str, metric: str, limit: float) -> Claim:
    """The metric's mean is higher."""
    return lambda method, results: _metric(method, results, network, metric) > limit


def better_than(other: str, network: str, metric: str, higher: bool = True) -> Claim:
    """The metric's mean is better than another method's."""

    def claim(method: str, results: Results) -> bool:
        own, others = (_metric(name, results, network, metric) for name in (method, other))
        return own > others if higher else own < others

    return claim


def passes(method: str, results: Results) -> bool:
    """The map follows the weights."""
    return verdict(results["methods"][method]).startswith("passes")


def _network(method: str, results: Results, network: str) -> Mapping[str, Any]:
    return results["methods"].get(method, {}).get("networks", {}).get(network, {})


def _metric(method: str, results: Results, network: str, metric: str, figure: str = "mean") -> float:
    """A metric's figure; NaN, of which no claim is true, where there is none."""
    value = _network(method, results, network).get("metrics", {}).get(metric, {}).get(figure)
    return float("nan") if value is None else value


CLASSES: Claim = above("honest", "class_sensitivity", 0.5)
ONE_PASS: Claim = at_most("gradient", 1)
BLACK_BOX: Claim = at_most("gradient", 0)
COMPLETE: Claim = below("honest", "completeness", 0.02)

ADVICE: Mapping[str, Advice] = {
    "gradient": Advice(
        "one pass must do, for a first look", {"passes": passes, "finds": finds(1.5), "one pass": ONE_PASS}
    ),
    "input_x_gradient": Advice(
        "the network is nearly linear", {"passes": passes, "exact there": exact("linear"), "one pass": ONE_PASS}
    ),
    "smoothgrad": Advice(
        "the gradient is too noisy to read",
        {
            "passes": passes,
            "less noisy": better_than("gradient", "honest", "relevance_mass"),
            "more faithful": better_than("gradient", "honest", "insertion"),
        },
    ),
    "smoothgrad_squared": Advice(
        "you ask where, not for which class",
        {"passes": passes, "sharper": better_than("smoothgrad", "honest", "relevance_mass"), "points": points(0.9)},
    ),
    "integrated_gradients": Advice(
        "the parts must add up to the score",
        {"passes": passes, "adds up": COMPLETE, "right": exact("linear", "additive")},
    ),
    "smoothgrad_integrated": Advice(
        "integrated gradients are too noisy, and the parts needn't add up",
        {
            "passes": passes,
            "less noisy": better_than("integrated_gradients", "honest", "relevance_mass"),
            "more faithful": better_than("integrated_gradients", "honest", "insertion"),
        },
    ),
    "expected_gradients": Advice(
        "no single baseline stands for nothing",
        {
            "passes": passes,
            "more faithful": better_than("integrated_gradients", "honest", "insertion"),
            "finds": finds(4),
        },
    ),
    "blur_integrated_gradients": Advice(
        "no colour stands for nothing, and the parts must nearly add up",
        {"passes": passes, "adds up": below("honest", "completeness", 0.1), "finds": finds(3)},
    ),
    "guided_integrated_gradients": Advice(
        "integrated gradients are too noisy, at any cost",
        {
            "passes": passes,
            "less noisy": better_than("integrated_gradients", "honest", "relevance_mass"),
            "more faithful": better_than("integrated_gradients", "honest", "insertion"),
        },
    ),
    "xrai": Advice("regions are wanted, not pixels", {"passes": passes, "finds": finds(3), "points": points(0.8)}),
    "lrp_epsilon_plus": Advice(
        "one pass must do, and the map be clear",
        {
            "passes": passes,
            "one pass": ONE_PASS,
            "clear": better_than("smoothgrad", "honest", "relevance_mass"),
            "tells classes apart": CLASSES,
            "points": points(0.9),
        },
    ),
    "lrp_gamma": Advice(
        "one pass must do, and what speaks against shows too",
        {"passes": passes, "one pass": ONE_PASS, "clear": finds(5), "tells classes apart": CLASSES},
    ),
    "deeplift": Advice(
        "one pass must do, and the parts add up to the score",
        {"passes": passes, "one pass": ONE_PASS, "adds up": COMPLETE, "right": exact("linear", "additive")},
    ),
    "gradcam": Advice(
        "a rough place is enough, at the least cost",
        {"passes": passes, "cheap": at_most("time", 1.5), "finds": finds(2), "right": exact("pooled")},
    ),
    "hirescam": Advice(
        "a rough place is enough, with what speaks against",
        {"passes": passes, "right": exact("pooled"), "tells classes apart": above("honest", "class_sensitivity", 0.8)},
    ),
    "reciprocam": Advice(
        "a rough place is enough, without a gradient",
        {"passes": passes, "finds": finds(2), "cheap": at_most("time", 3)},
    ),
    "occlusion": Advice(
        "the network is a black box: what does hiding a place cost?",
        {
            "passes": passes,
            "no gradient": BLACK_BOX,
            "faithful": above("honest", "faithfulness", 0.9),
            "finds": finds(4),
        },
    ),
    "rise": Advice(
        "the network is a black box, and a soft map enough",
        {"passes": passes, "no gradient": BLACK_BOX, "finds": finds(2), "points": points(0.9)},
    ),
    "kernel_shap": Advice(
        "the network is a black box: what does each segment add?",
        {
            "passes": passes,
            "no gradient": BLACK_BOX,
            "faithful": above("honest", "faithfulness", 0.85),
            "finds": finds(3),
        },
    ),
}
