"""The plain gradient, ours and others': one map each in turns, all compared with torch in float64."""

import importlib.util
import os
import shutil
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from bench_rounds import Timing, settled
from bench_statistics import agrees, median, ratio
from bench_subject import SEGMENTED_CLASS, Subject, error, torch_gradient

Array = NDArray[Any]
MapOf = Callable[[], Array]

FORWARD, GRAPH, OURS, SAME = "forward", "graph", "ours", "ours again"
EAGER, COMPILED, CAPTUM, ONNX_AD = "torch eager", "torch.compile", "captum", "onnx-ad"
PEERS = (EAGER, COMPILED, CAPTUM, ONNX_AD)
# Of the middle picture and of the worst one, or five times torch eager's own where that is more.
TYPICAL, WORST = 5e-3, 5e-2
HALF_TYPICAL, HALF_WORST = 5e-2, 5e-1


class NotHereError(Exception):
    """A contender that can't take part, and why."""


def measure(subject: Subject, timing: Timing) -> dict[str, Any]:
    """Seconds, errors and ratios of every contender; void where ours twice doesn't agree with itself."""
    contenders, absent = _contenders(subject)
    truth = subject.truth
    errors = {name: error(run(), truth) for name, run in contenders.items() if name != FORWARD}
    wrong = [name for name in errors if not _right(errors[name], errors[EAGER], subject.precision)]
    for name in wrong:
        far = f"{errors[name]['typical']:.1e}, at worst {errors[name]['worst']:.1e}"
        absent[name] = f"its map is wrong: {far} from float64"
        del contenders[name]
    if OURS in wrong:
        return {"errors": errors, "absent": absent, "void": False}
    seconds, attempts = settled(contenders, timing, OURS, SAME)
    void = not agrees(seconds, OURS, SAME)
    return {**_figures(seconds), "errors": errors, "absent": absent, "attempts": attempts, "void": void}


def _figures(seconds: Mapping[str, list[float]]) -> dict[str, Any]:
    ratios = {"ours again ÷ ours": ratio(seconds, SAME, OURS)}
    ratios["gradient ÷ forward"] = ratio(seconds, GRAPH, FORWARD)
    ratios["explain ÷ forward"] = ratio(seconds, OURS, FORWARD)
    ratios |= {f"{peer} ÷ ours": ratio(seconds, peer, OURS) for peer in PEERS if peer in seconds}
    return {"seconds": {name: median(values) for name, values in seconds.items()}, "ratios": ratios}


def _right(found: Mapping[str, float], eager: Mapping[str, float], precision: str) -> bool:
    typical, worst = (TYPICAL, WORST) if precision == "float32" else (HALF_TYPICAL, HALF_WORST)
    return found["typical"] <= max(typical, 5 * eager["typical"]) and found["worst"] <= max(worst, 5 * eager["worst"])


def _contenders(subject: Subject) -> tuple[dict[str, MapOf], dict[str, str]]:
    """Who takes part, each a call that returns its maps, and who doesn't, with the reason."""
    makers = {
        FORWARD: forward,
        GRAPH: graph,
        OURS: ours,
        SAME: ours,
        EAGER: eager,
        COMPILED: compiled,
        CAPTUM: captum_saliency,
        ONNX_AD: onnx_ad,
    }
    found, absent = {}, {}
    for name, make in makers.items():
        try:
            found[name] = make(subject)
        except NotHereError as reason:
            absent[name] = str(reason)
    return found, absent


def forward(subject: Subject) -> MapOf:
    """onnxruntime on the file that we were given, nothing set but the threads."""
    session = subject.session(subject.forward_file)
    ((name, rows),) = feeds_of_model(subject).items()
    if session.get_inputs()[0].shape[0] != 1:
        return lambda: session.run(None, {name: rows})[0]
    # A baked batch of one.
    return lambda: np.concatenate([session.run(None, {name: row[None]})[0] for row in rows])


def feeds_of_model(subject: Subject) -> dict[str, Array]:
    """The pictures by the name and in the type that the file wants."""
    entry = onnx.load(subject.forward_file, load_external_data=False).graph
    weights = {tensor.name for tensor in entry.initializer}
    (image,) = (value for value in entry.input if value.name not in weights)
    dtype = onnx.helper.tensor_dtype_to_np_dtype(image.type.tensor_type.elem_type)
    return {image.name: subject.array.astype(dtype)}


def graph(subject: Subject) -> MapOf:
    """Our gradient graph alone, as anyone may run it."""
    session = subject.session(subject.bundle("gradient") / "gradient.onnx")
    feeds = feeds_of_graph(subject, session)
    return lambda: session.run(["total"], feeds)[0][:, 0]


def feeds_of_graph(subject: Subject, session: Any) -> dict[str, Array]:
    """The pictures with their top classes, or with the cotangent of the segmentation's class."""
    feeds = {}
    for entry in session.get_inputs():
        if entry.name == "target":
            feeds[entry.name] = np.array(subject.targets, np.int64)[:, None]
        elif entry.name == "cotangent":
            feeds[entry.name] = _cotangent(subject, forward(subject)())[:, None]
        else:
            feeds[entry.name] = subject.array
    return feeds


def _cotangent(subject: Subject, scores: Array) -> Array:
    """1 at each picture's top class, or wherever the segmentation's class is the best one."""
    best = scores.argmax(1)
    if not subject.network.segments:
        return np.eye(scores.shape[1], dtype=np.float32)[best]
    chosen = np.zeros(scores.shape, np.float32)
    chosen[:, SEGMENTED_CLASS] = best == SEGMENTED_CLASS
    return chosen


def ours(subject: Subject) -> MapOf:
    """An explainer's map, as a user gets it: scores, top class and gradient."""
    explainer = subject.explainer("gradient")
    targets = SEGMENTED_CLASS if subject.network.segments else None
    return lambda: explainer.explain(subject.array, "gradient", targets).attribution


def eager(subject: Subject) -> MapOf:
    """The same in torch."""
    return lambda: torch_gradient(subject, subject.module, subject.tensor()).float().cpu().numpy()


def compiled(subject: Subject) -> MapOf:
    """The same in torch, compiled; the time of compiling isn't counted."""
    if subject.device == "cpu" and not any(shutil.which(name) for name in ("g++", "clang++", "c++")):
        raise NotHereError("torch.compile needs a C++ compiler, and there is none")
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(subject.work / "inductor"))
    torch._dynamo.reset()
    module = torch.compile(subject.module, dynamic=False)
    try:
        torch_gradient(subject, module, subject.tensor())
    except Exception as failure:  # whatever its compiler says
        raise NotHereError(f"it doesn't compile: {_said(failure)}") from failure
    return lambda: torch_gradient(subject, module, subject.tensor()).float().cpu().numpy()


def captum_saliency(subject: Subject) -> MapOf:
    """Captum's Saliency, which has to be told the top class; a segmentation in its documentation's wrapper."""
    from captum.attr import Saliency  # may be missing

    if subject.network.segments:
        wrapped = Saliency(lambda rows: _summed_where_best(subject.module(rows)))
    else:
        wrapped = Saliency(subject.module)

    def run() -> Array:
        rows = subject.tensor()
        target: Any = SEGMENTED_CLASS
        if not subject.network.segments:
            with torch.no_grad():
                target = subject.module(rows).argmax(1)
        return wrapped.attribute(rows.requires_grad_(), target=target, abs=False).detach().float().cpu().numpy()

    return run


def _summed_where_best(scores: Any) -> Any:
    """Of a segmentation, each class's scores summed where it is the best one: [N, classes]."""
    best = torch.zeros_like(scores).scatter_(1, scores.argmax(1, keepdim=True), 1)
    return (scores * best).sum((2, 3))


def onnx_ad(subject: Subject) -> MapOf:
    """onnx-ad's adjoint of the same file in onnxruntime, seeded with the top class."""
    if importlib.util.find_spec("onnx_ad") is None:
        raise NotHereError("onnx-ad isn't installed")
    import onnx_ad as package

    model = _fixed_batch(onnx.load(subject.file), subject.batch)
    name, scores = model.graph.input[0].name, model.graph.output[0].name
    path = subject.work / "onnx-ad" / f"{subject.name}.onnx"
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        onnx.save(package.reverse(model, inputs=[name], layout="onnx"), path)
        session = subject.session(path)
    except Exception as failure:  # whatever it and the runtime say of a graph that they can't take
        raise NotHereError(_said(failure)) from failure
    taken, first = {entry.name for entry in session.get_inputs()}, forward(subject)
    (seed,) = (entry for entry in taken if entry.startswith("adj_"))
    extra = {scores} & taken

    def run() -> Array:
        logits = first()
        cotangent = _cotangent(subject, logits)[..., None]
        feeds = {name: subject.array, seed: cotangent, **dict.fromkeys(extra, logits)}
        return session.run([f"adj_{name}"], {key: feeds[key] for key in taken})[0][..., 0]

    run()
    return run


def _said(failure: Exception) -> str:
    lines = str(failure).strip().splitlines()
    return f"{type(failure).__name__}: {lines[0] if lines else ''}"[:200]


def _fixed_batch(model: onnx.ModelProto, batch: int) -> onnx.ModelProto:
    """The model with its batch axis fixed: onnx-ad wants declared shapes."""
    for value in (*model.graph.input, *model.graph.output):
        axis = value.type.tensor_type.shape.dim[0]
        if not axis.dim_value:
            axis.Clear()
            axis.dim_value = batch
    del model.graph.value_info[:]
    return onnx.shape_inference.infer_shapes(model)
