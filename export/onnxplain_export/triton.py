"""Writes a single file as a model of a Triton Inference Server: a folder with config.pbtxt, labels and the model.

The format is that of ModelConfig in Triton's model_config.proto; its onnxruntime backend runs the file. Triton batches
requests along the first axis of every tensor, and leaves it out of `dims`.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from onnxplain.bundle import Bundle, GraphInput, Shape
from onnxplain.bundle_files import description_of, read_bundle
from onnxplain.errors import OutputError, ParameterError

TYPES = {
    "float32": "TYPE_FP32",
    "float64": "TYPE_FP64",
    "int64": "TYPE_INT64",
    "int32": "TYPE_INT32",
    "uint8": "TYPE_UINT8",
    "int8": "TYPE_INT8",
    "bool": "TYPE_BOOL",
}
MOST_IMAGES = 16
"""A batch that Triton puts together of requests; the file's loop bounds the memory of the steps, not of the images."""
LABELS = "labels.txt"


def write_triton(file: Path, repository: Path, name: str, overwrite: bool = False) -> Path:
    """Writes the model `name` into a model repository, and returns its folder; all of it or nothing.

    Raises ParameterError where an input isn't batch-first, OutputError where the folder exists or can't be written.
    """
    bundle, told = read_bundle(file), description_of(file)
    config = config_of(bundle, told, name)
    target = repository / name
    if target.exists() and not (overwrite and (target / "config.pbtxt").is_file()):
        raise OutputError(f"{target} exists; choose another name or pass --overwrite")
    try:
        repository.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{name}.", dir=repository))
        try:
            (folder / "1").mkdir()
            shutil.copyfile(file, folder / "1" / "model.onnx")
            (folder / "config.pbtxt").write_text(config, encoding="utf-8")
            if bundle.scores.labels:
                (folder / LABELS).write_text("\n".join(bundle.scores.labels) + "\n", encoding="utf-8")
            folder.chmod(0o755)
            if target.exists():
                shutil.rmtree(target)
            os.rename(folder, target)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    except OSError as error:
        raise OutputError(f"{target}: can't be written ({error.strerror or error})") from error
    return target


def config_of(bundle: Bundle, told: dict[str, Any], name: str) -> str:
    """The text of config.pbtxt."""
    graph = bundle.graphs[bundle.scoring]
    for entry in graph.inputs:
        if entry.shape[0] != "N":
            raise ParameterError(
                f"Triton needs a row for each image in every input, and {entry.name!r} is {list(entry.shape)}; bake it "
                "in, without --free"
            )
    outputs = told["graphs"][graph.name]["outputs"]
    lines = [
        f"name: {_quoted(name)}",
        'platform: "onnxruntime_onnx"',
        f"max_batch_size: {MOST_IMAGES}",
        *_field("input", (_input(entry) for entry in graph.inputs)),
        *_field("output", (_output(output, bundle) for output in outputs)),
        "dynamic_batching { }",
    ]
    return "\n".join(lines) + "\n"


def _field(name: str, entries: Iterator[list[str]]) -> Iterator[str]:
    for entry in entries:
        yield f"{name} {{"
        yield from (f"  {line}" for line in entry)
        yield "}"


def _input(entry: GraphInput) -> list[str]:
    return [f"name: {_quoted(entry.name)}", f"data_type: {TYPES[entry.dtype]}", *_dims(entry.shape)]


def _output(output: dict[str, Any], bundle: Bundle) -> list[str]:
    lines = [f"name: {_quoted(output['name'])}", f"data_type: {TYPES[output['dtype']]}", *_dims(output["shape"])]
    named = output["name"] == "scores" and bundle.scores.labels
    return [*lines, f"label_filename: {_quoted(LABELS)}"] if named else lines


def _dims(shape: Shape) -> list[str]:
    """The axes behind the batch, -1 for a free one; Triton knows no tensor without any, so one of 1 is taken away."""
    if len(shape) == 1:
        return ["dims: [ 1 ]", "reshape { shape: [ ] }"]
    return [f"dims: [ {', '.join(str(axis) if isinstance(axis, int) else '-1' for axis in shape[1:])} ]"]


def _quoted(text: str) -> str:
    """A string of protocol buffers' text format."""
    return json.dumps(text, ensure_ascii=True)
