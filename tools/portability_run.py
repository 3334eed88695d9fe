"""Runs the cases of tools/portability_cases.py on one runtime: `portability_run.py RUNTIME CASES.JSON FOLDER`.

Needs numpy and that runtime alone, so that any environment's Python can run it.
"""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Feeds = Mapping[str, Any]
Runtime = Callable[[Mapping[str, Any], Feeds], Mapping[str, Any]]


def onnxruntime(case: Mapping[str, Any], feeds: Feeds) -> Mapping[str, Any]:
    """onnxruntime's CPU provider as it comes."""
    import onnxruntime as runtime  # each runtime is imported only where it is asked for

    runtime.set_default_logger_severity(4)
    session = runtime.InferenceSession(case["model"], providers=["CPUExecutionProvider"])
    return dict(zip(case["outputs"], session.run(case["outputs"], dict(feeds)), strict=True))


def openvino(case: Mapping[str, Any], feeds: Feeds) -> Mapping[str, Any]:
    """OpenVINO's CPU device, asked for float32 where its default might be less."""
    import openvino as runtime

    compiled = runtime.Core().compile_model(case["model"], "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    results = compiled(dict(feeds))
    return {name: results[name] for name in case["outputs"]}


def opencv(case: Mapping[str, Any], feeds: Feeds) -> Mapping[str, Any]:
    """OpenCV's dnn module."""
    import cv2

    network = cv2.dnn.readNetFromONNX(case["embedded"])
    for name, values in feeds.items():
        network.setInput(values, name)
    return dict(zip(case["outputs"], network.forward(case["outputs"]), strict=True))


def reference(case: Mapping[str, Any], feeds: Feeds) -> Mapping[str, Any]:
    """The reference evaluator of the onnx package: numpy, operator by operator."""
    from onnx.reference import ReferenceEvaluator

    return dict(zip(case["outputs"], ReferenceEvaluator(case["model"]).run(case["outputs"], dict(feeds)), strict=True))


RUNTIMES: dict[str, Runtime] = {
    "onnxruntime": onnxruntime,
    "openvino": openvino,
    "opencv": opencv,
    "reference": reference,
}


def main(runtime: str, cases: str, folder: str) -> None:
    """Runs every case that has no result yet."""
    for case in json.loads(Path(cases).read_text("utf-8")):
        place = Path(folder, case["id"])
        if (place / "result.json").exists():
            continue
        place.mkdir(parents=True, exist_ok=True)
        (place / "started").touch()
        feeds = {entry["name"]: _read(entry) for entry in case["inputs"]}
        try:
            outputs = RUNTIMES[runtime](case, feeds)
            result = {"outputs": [_write(place, number, *output) for number, output in enumerate(outputs.items())]}
        except Exception as error:  # whatever a runtime says is the case's result
            result = {"error": f"{type(error).__name__}: {error}"}
        (place / "result.json").write_text(json.dumps(result), "utf-8")


def _read(entry: Mapping[str, Any]) -> Any:
    return np.fromfile(entry["file"], entry["dtype"]).reshape(entry["shape"])


def _write(place: Path, number: int, name: str, values: Any) -> dict[str, Any]:
    array, file = np.ascontiguousarray(values), f"output_{number}.bin"  # a name may have slashes
    (place / file).write_bytes(array.tobytes())
    return {"name": name, "dtype": array.dtype.name, "shape": list(np.shape(values)), "file": file}


if __name__ == "__main__":
    arguments: Sequence[str] = sys.argv[1:]
    if len(arguments) != 3 or arguments[0] not in RUNTIMES:
        sys.exit(f"usage: portability_run.py {'|'.join(RUNTIMES)} CASES.JSON FOLDER")
    main(*arguments)
