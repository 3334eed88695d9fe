"""Proves a bundle against its source before it is called done; what was measured goes into explainer.json."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime

from onnxplain.errors import ModelError, VerificationError
from onnxplain_export.evaluate import NUMPY_TYPES, run, session_of
from onnxplain_export.graphs import GRAPHS, SCORING, SHARING
from onnxplain_export.grids import Layer
from onnxplain_export.layers import graph_name
from onnxplain_export.normalize import Normalized, named_value
from onnxplain_export.normalize.onward import onward
from onnxplain_export.normalize.opset import runnable
from onnxplain_export.normalize.precision import to_float32
from onnxplain_export.verify.agreements import AGREEMENTS
from onnxplain_export.verify.differences import across_the_gradient, along_the_gradient, rounding_of_scores
from onnxplain_export.verify.layers import layer_checks
from onnxplain_export.verify.proof import (
    IMAGES,
    Array,
    Proof,
    Sessions,
    relative,
    rows_of,
    sample_feeds,
    spread_of,
    worst,
)
from onnxplain_export.verify.rounding import against_float32, with_roundings
from onnxplain_export.verify.told import tells, told
from onnxplain_export.verify.unrounded import unrounded

Feeds = Mapping[str, Array]

FORWARD_TOLERANCE = 1e-5
HALF_TOLERANCE = 5e-2
"""Of scores, against a source in half precision or by graphs that compute so: 1e-2 for a random MobileNetV2."""
HALVES_AGREE = 0.1
"""Of graphs in half precision against one another, which agree to 1e-7 but where a rounding makes a gradient jump."""
FURTHEST = 0.25
"""What their tolerances never exceed, whatever they owe to the jumps of ReLUs: noise that differs in float32's last
places takes the noise graph of a random ResNet-18 off by 0.07, a random MobileNetV2's by 0.13."""
UNBOUNDED = frozenset({"forward", "precision", "missing"})
"""Checks against float32 that bound their own tolerances."""
ROUNDED_TOLERANCE = 2e-2
"""Of weights that were rounded to half precision: 5e-4 on the shipped networks."""
JITTER = 1e-7
JITTERS_ALLOWED = 4.0
"""Times what the source's own scores move when its input moves by a rounding error: badly conditioned networks."""
HALVES = ("float16", "bfloat16")


def verify(
    normalized: Normalized,
    folder: Path,
    graphs: Mapping[str, ir.Model],
    steps: list[dict[str, Any]],
    layers: Sequence[Layer] = (),
) -> dict[str, Any]:
    """The measured errors of every graph; VerificationError names the first that is out of tolerance.

    The forward pass is compared with the source, a batch with its images alone, the gradient with finite differences
    of the forward pass, and every other graph with those two. Graphs in half precision are proved with an
    accelerator's roundings, and compared with the network in float32.
    """
    if normalized.half is not None:
        sessions = {name: session_of(with_roundings(model)) for name, model in graphs.items()}
    else:
        sessions = {name: session_of(folder / f"{name}.onnx") for name in graphs}
    feeds = sample_feeds(normalized, steps)
    alone = [run(sessions["forward"], rows_of(normalized, feeds, np.array([i]))) for i in range(IMAGES)]
    names = [output.name for output in sessions["forward"].get_outputs()]
    ours = {name: [outputs[index] for outputs in alone] for index, name in enumerate(names)}
    scores = np.concatenate(ours["scores"])
    record: dict[str, Any] = {}
    room = None if normalized.half is None else HALF_TOLERANCE
    note = partial(_note, record, room)
    for name, entry in _against_source(normalized, feeds, ours):
        note(name, entry)
    note("batch", _batch(sessions["forward"], feeds, scores))
    values = np.concatenate(ours["explained"]) if normalized.inside else feeds[normalized.image]
    proof = _proof(normalized, sessions, feeds, values, scores)
    far = None if normalized.half is None else _far(record, proof, folder)
    for name, entry in _checks(proof, layers):
        _note(record, _room(name, normalized, far), name, entry)
    for name in [name for name in SHARING if name in sessions]:
        record.update(_shared(name, proof))
    _note_told(record, proof)
    return record


def _far(record: dict[str, Any], proof: Proof, folder: Path) -> float:
    """The room of what is compared with the network in float32, from how near the gradient comes to that one's."""
    if "gradient" not in proof.sessions:
        return FURTHEST
    _note(record, 0.0, "precision", against_float32(proof, session_of(folder / "gradient.onnx")))
    return min(float(record["precision"]["tolerance"]), FURTHEST)


def _room(name: str, normalized: Normalized, far: float | None = None) -> float | None:
    """What a check of a network in half precision needs beside its own tolerance; None for other networks."""
    if normalized.half is None:
        return None
    if name.partition(".")[0] in SCORING or name == "onward":
        return HALF_TOLERANCE
    with_float32 = name == "missing" or name.partition(".")[0] == "layer" or normalized.inside
    return far if with_float32 and far is not None else HALVES_AGREE


def _checks(proof: Proof, layers: Sequence[Layer]) -> Iterator[tuple[str, dict[str, Any]]]:
    """What is measured of the graphs by themselves, of all but those that others can stand in for."""
    if proof.normalized.inside:
        yield "onward", _onward(proof)
    if "gradient" in proof.sessions:
        rounding = rounding_of_scores(proof)
        along = along_the_gradient(proof, rounding)
        yield "gradient", along
        yield "missing", across_the_gradient(proof, rounding)
        if not along["images"]:
            raise VerificationError(
                "the scores hardly react to random images, so no gradient can be proved; "
                "is the preprocessing the network's own?"
            )
    for name, check in AGREEMENTS.items():
        if name in proof.sessions and name not in SHARING:
            yield name, check(proof)
    for number, at in enumerate(layers):
        tail = graph_name("tail", number)
        yield from layer_checks(proof, at, graph_name("layer", number), tail if tail in proof.sessions else None)


def _note_told(record: dict[str, Any], proof: Proof) -> None:
    """Adds to the record of each graph that tells the scores how far off they are, or fails with it."""
    for name in [name for name in proof.sessions if tells(name) and (name in record or name not in SHARING)]:
        entry = _allowed(told(proof, name), name, _room(name, proof.normalized))
        if not entry["error"] <= entry["tolerance"]:
            raise VerificationError(_EXPLANATIONS["told"].format(name=name, **entry))
        record[name] = {**record.get(name, entry), "told": entry["error"]}


def _shared(name: str, proof: Proof) -> dict[str, Any]:
    """The record of a graph in which targets share a forward pass; empty where it is wrong, for it can be done without.

    It rests on the rows being the outermost axis of whatever is repeated, which only running it can show.
    """
    try:
        entry = _allowed(AGREEMENTS[name](proof), name, _room(name, proof.normalized))
    except ModelError:
        return {}
    return {name: entry} if entry["error"] <= entry["tolerance"] else {}


def _note(record: dict[str, Any], room: float | None, name: str, entry: dict[str, Any]) -> None:
    """Adds one check's result to the record, or fails with it; `room` is what half precision needs, if it is used."""
    entry = _allowed(entry, name, room)
    if not entry["error"] <= entry["tolerance"]:
        explanation = _IN_HALF if room is not None else _EXPLANATIONS.get(name, _DISAGREES)
        raise VerificationError(explanation.format(name=name, **entry))
    record[name] = entry


def _allowed(entry: dict[str, Any], name: str, room: float | None) -> dict[str, Any]:
    """One check's result, with the tolerance that half precision needs beside its own."""
    if room is None:
        return entry
    most = np.inf if name in UNBOUNDED else FURTHEST
    return {**entry, "tolerance": min(entry["tolerance"] + room, most)}


_IN_HALF = (
    "in half precision {name!r} is off by {error:.1e} (tolerance {tolerance:.0e}): the network needs the range or the "
    "digits of float32; export it with precision='float32'"
)
_DISAGREES = (
    "the graph {name!r} disagrees with the plain passes by {error:.1e} (tolerance {tolerance:.0e}); "
    "please report this model"
)
_EXPLANATIONS = {
    "forward": "the exported scores differ from the source model's by {error:.1e} (tolerance {tolerance:.0e})",
    "half": "the scores in float32 differ from the model's in its own half precision by {error:.1e} "
    "(tolerance {tolerance:.0e})",
    "float16": "with weights in half precision the scores differ from the model's by {error:.1e} "
    "(tolerance {tolerance:.0e}); export it without",
    "batch": "the batch axis isn't free: images in a batch get other scores than alone, by {error:.1e} "
    "(tolerance {tolerance:.0e}); export the model with a dynamic batch axis, in evaluation mode",
    "missing": "random directions see a part of the gradient that the graph lacks: {error:.0%} "
    "(tolerance {tolerance:.0%}); please report this model",
    "onward": "the scores that follow from the explained value differ from the model's by {error:.1e} "
    "(tolerance {tolerance:.0e}); please report this model",
    "told": "the scores or the top class that the graph {name!r} gives are wrong by {error:.1e} (tolerance "
    "{tolerance:.0e}); please report this model",
    "gradient": "the gradient differs from finite differences by {error:.1e} (tolerance {tolerance:.0e}); "
    "please report this model",
}


def _against_source(
    normalized: Normalized, feeds: Feeds, ours: dict[str, list[Array]]
) -> Iterable[tuple[str, dict[str, Any]]]:
    """The forward pass against the model as it was given; one in half precision is also compared in float32.

    With weights that export rounds, its scores stay near the model's.
    """
    source = _with_scores(normalized, runnable(normalized.source.model.clone()))
    half = any(name in normalized.source.precision for name in HALVES)
    if normalized.half is not None:
        to_float32(source)
        yield "forward", _forward(normalized, session_of(source), feeds, ours, FORWARD_TOLERANCE)
    elif normalized.source.rounded:
        to_float32(source)
        yield "float16", _forward(normalized, session_of(source), feeds, ours, ROUNDED_TOLERANCE)
    elif half:
        widened = source.clone()
        to_float32(widened)
        yield "forward", _forward(normalized, session_of(widened), feeds, ours, FORWARD_TOLERANCE)
        session = _session_or_none(source)
        if session is not None:
            yield "half", _forward(normalized, session, feeds, ours, HALF_TOLERANCE)
    else:
        yield "forward", _forward(normalized, session_of(source), feeds, ours, FORWARD_TOLERANCE)


def _session_or_none(source: ir.Model) -> onnxruntime.InferenceSession | None:
    """A session in the source's own half precision, for which onnxruntime's CPU has few kernels."""
    try:
        return session_of(source)
    except ModelError:
        return None


def _with_scores(normalized: Normalized, source: ir.Model) -> ir.Model:
    """The source with the value that the scores are read from as an output: after a softmax, errors in them vanish."""
    tapped = _source_name(normalized.scores.tapped)
    if tapped not in {value.name for value in source.graph.outputs}:
        for node in source.graph:
            source.graph.outputs.extend(value for value in node.outputs if value.name == tapped)
    return source


def _forward(
    normalized: Normalized,
    session: onnxruntime.InferenceSession,
    feeds: Feeds,
    ours: dict[str, list[Array]],
    tolerance: float,
) -> dict[str, Any]:
    """The largest difference of the scores and of any output, image by image."""
    pairs = _pairs(normalized, [output.name for output in session.get_outputs()], list(ours))
    if not pairs:
        raise VerificationError(f"no output of the source model is found again among {', '.join(ours)}")
    wanted = [name for name, _ in pairs]
    errors, allowed = [], tolerance
    for index in range(IMAGES):
        given = rows_of(normalized, feeds, np.array([index]))
        truth = _of_source(normalized, session, given, wanted)
        found = [_error(normalized, ours[name][index], a) for (_, name), a in zip(pairs, truth, strict=True)]
        errors.append(worst(found))
        if errors[-1] > tolerance and not normalized.integers:
            moved = _of_source(normalized, session, _jittered(given, index), wanted)
            jitter = worst([relative(a, b) for a, b in zip(moved, truth, strict=True)])
            allowed = max(allowed, JITTERS_ALLOWED * jitter)
    return {"error": worst(errors), "tolerance": allowed, "images": IMAGES}


def _of_source(
    normalized: Normalized, session: onnxruntime.InferenceSession, feeds: Feeds, outputs: list[str]
) -> list[Array]:
    """The source's outputs for one image, repeated where the source fixes the batch."""
    given: dict[str, Array] = {}
    for entry in session.get_inputs():
        value = feeds[normalized.renamed.get(entry.name, entry.name)]
        batched = entry.shape and value.shape[:1] == (1,) and entry.shape[0] == normalized.baked
        repeated = np.repeat(value, normalized.baked or 1, axis=0) if batched else value
        given[entry.name] = repeated.astype(NUMPY_TYPES.get(entry.type, np.float32))
    return [np.atleast_1d(result)[:1] for result in run(session, given, outputs)]


def _jittered(feeds: Feeds, seed: int) -> dict[str, Array]:
    """The floats among the feeds moved by a rounding error."""
    generator = np.random.default_rng(seed)
    return {
        name: value * (1 + JITTER * generator.choice([-1, 1], value.shape)) if value.dtype == np.float32 else value
        for name, value in feeds.items()
    }


def _pairs(normalized: Normalized, theirs: list[str], ours: list[str]) -> list[tuple[str, str]]:
    """Which of the source's outputs is which of ours."""
    tapped = _source_name(normalized.scores.tapped)
    renamed = normalized.renamed
    pairs = [(name, renamed.get(name, name)) for name in theirs if renamed.get(name, name) in ours]
    return [*pairs, (tapped, "scores")] if tapped in theirs else pairs


def _error(normalized: Normalized, ours: Array, theirs: Array) -> float:
    """The relative difference; of a one-logit head, whose scores are (−z, z), the last is the model's own."""
    ours = ours.reshape(1, -1)
    return relative(ours[:, -1:] if theirs.size == 1 and not normalized.scores.free else ours, theirs)


def _source_name(name: str) -> str:
    """What the source calls a value; whatever had a name of ours, or this prefix, got it by normalisation."""
    return name.removeprefix("model/")


def _batch(session: onnxruntime.InferenceSession, feeds: Feeds, scores: Array) -> dict[str, Any]:
    """f([a; b]) against [f(a); f(b)]."""
    try:
        together = run(session, feeds, ["scores"])[0]
    except ModelError as error:
        raise VerificationError(f"the batch axis isn't free: a batch of {IMAGES} images fails; {error}") from error
    return {"error": relative(together, scores), "tolerance": FORWARD_TOLERANCE, "images": IMAGES}


def _onward(proof: Proof) -> dict[str, Any]:
    """The scores as they follow from the explained value against those that follow from the input."""
    error = relative(proof.scores_at(proof.values, np.arange(IMAGES)), proof.scores)
    return {"error": error, "tolerance": FORWARD_TOLERANCE, "images": IMAGES}


def _proof(normalized: Normalized, sessions: Sessions, feeds: Feeds, values: Array, scores: Array) -> Proof:
    """The proof, with the gradients of the first that is chosen for each image."""
    chosen = _chosen(normalized, scores)
    behind, going_on = onward(normalized.full), dict(sessions)
    if normalized.half is not None and not normalized.inside:
        going_on["forward"] = session_of(GRAPHS["forward"](behind))  # differences drown in the roundings of half
    elif normalized.inside:
        going_on = {name: session_of(GRAPHS[name](behind)) for name in ("forward", "gradient") if name in sessions}
    if normalized.straight_through:
        going_on["forward"] = session_of(_with_roundings_held(behind))
    gradients = np.zeros((0, *values.shape[1:]))
    proof = Proof(
        normalized, sessions, going_on, behind.image, feeds, values, scores, chosen, gradients, spread_of(normalized)
    )
    if "gradient" not in sessions:
        return proof
    found = proof.run("gradient", ["total"], np.arange(IMAGES), **{proof.chosen_name: chosen[:, :1]})
    gradients = found[0][:, 0].astype(np.float64)
    hint = "" if normalized.half is None else " (in half precision; try precision='float32')"
    if not np.isfinite(gradients).all():
        raise VerificationError(f"the gradient holds NaN or infinite values{hint}")
    if not gradients.any():
        raise VerificationError(
            f"the gradient is zero on random images: the network doesn't react to its input there{hint}"
        )
    return replace(proof, gradients=gradients)


def _with_roundings_held(normalized: Normalized) -> ir.Model:
    """A quantised network whose true gradient is the straight-through one: see `unrounded`."""
    model = normalized.model.clone()
    scores = named_value(model.graph, normalized.scores.value.name or "")
    scores.name = "scores"
    model.graph.outputs.clear()
    model.graph.outputs.append(scores)
    return unrounded(model, normalized.image)


def _chosen(normalized: Normalized, scores: Array) -> Array:
    """Each image's top class and its neighbour (for the last the second best), or two random cotangents for each."""
    if normalized.scores.free:
        generator = np.random.default_rng(20171212)
        return generator.standard_normal((IMAGES, 2, *scores.shape[1:])).astype(np.float32)
    order = np.argsort(-scores, axis=1)
    first = order[:, 0].astype(np.int64)
    first[-1] = order[-1, min(1, scores.shape[1] - 1)]
    return np.stack([first, (first + 1) % scores.shape[1]], axis=1)
