"""`export_single`: writes a method of a bundle as one ONNX file, and proves it against the engine's own maps."""

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
import onnx_ir.passes.common as passes

from onnxplain.bundle import Bundle, Method
from onnxplain.bundle_files import METADATA, description_of, read_bundle
from onnxplain.errors import OutputError
from onnxplain.images import SPATIAL
from onnxplain_export.graphs.portable import make_portable
from onnxplain_export.memory import measured_memory
from onnxplain_export.normalize import BATCH
from onnxplain_export.normalize.shapes import infer_shapes
from onnxplain_export.single.asked import Asked, asked
from onnxplain_export.single.assembly import Assembly
from onnxplain_export.single.describing import graph_entry, memory_runs, single_description
from onnxplain_export.single.picture_input import prepared
from onnxplain_export.single.picture_output import as_bytes, heat_of, overlaid, undone
from onnxplain_export.single.proof import prove
from onnxplain_export.single.recipes import RECIPES
from onnxplain_export.single.scene import Scene

TYPES = {"float32": ir.DataType.FLOAT, "int64": ir.DataType.INT64, "int32": ir.DataType.INT32}
TYPES |= {"uint8": ir.DataType.UINT8, "int8": ir.DataType.INT8, "bool": ir.DataType.BOOL}


def export_single(
    bundle: str | PathLike[str],
    output: str | PathLike[str],
    method: str,
    *,
    parameters: Mapping[str, Any] | None = None,
    free: Sequence[str] = (),
    rows: int = 8,
    unrolled: bool = False,
    picture_input: bool = False,
    picture_output: bool = False,
    overwrite: bool = False,
) -> Path:
    """Writes one method of the bundle as the file `output`, checks it against the bundle's own maps, and returns it.

    The file takes the image (with `picture_input` uint8 RGB pictures [N, H, W, 3] of any one size, "picture") and
    int64 "target" [N, T], -1 for the top class; it gives "attribution" [N, T, …], finished, and "scores". With
    `picture_output` also "heatmap" uint8 [N, T, H, W] and "overlay" uint8 RGB [N, T, H, W, 3]. `parameters` are baked
    in, defaults where none is given; those named in `free` stay inputs. The sum goes through `rows` rows at a time,
    images × steps × targets, in a Loop, or `unrolled` in copies of the graph, of so many steps each.

    Raises ParameterError for what one graph can't do, BundleError, OutputError, VerificationError.
    """
    target = Path(output)
    if target.exists() and not overwrite:
        raise OutputError(f"{target} exists; choose another name or pass --overwrite")
    if target.is_dir():
        raise OutputError(f"{target} is a folder; a single file needs a file's name")
    read = read_bundle(bundle)
    wanted = asked(
        read,
        method,
        parameters or {},
        free,
        rows=rows,
        unrolled=unrolled,
        picture_input=picture_input,
        picture_output=picture_output,
    )
    model = assembled(read, wanted)
    with _new_file(target) as file:
        _write(model, file, read, wanted, target.name)
        prove(file, read, wanted)
    return target


def assembled(bundle: Bundle, wanted: Asked, most_steps: int | None = None) -> ir.Model:
    """The one graph, without its description; with a table of `most_steps` at most."""
    assembly = Assembly(bundle)
    scene, seen = _scene(assembly, wanted)
    scene.most_steps = most_steps
    attribution = RECIPES[wanted.method.loop](scene)
    assembly.output("attribution", attribution, _map_shape(scene))
    assembly.output("scores", scene.scores, [BATCH, *bundle.scores.shape[1:]])
    if wanted.picture_output:
        op, size = assembly.op, scene.size
        layout = str(bundle.value.layout if _is_of_value(wanted.method, bundle) else bundle.image.layout)
        heat = heat_of(op, attribution, layout, size)
        picture = seen if seen is not None else undone(op, scene.image, bundle.steps)
        assembly.output("heatmap", as_bytes(op, heat), [BATCH, "T", *size], ir.DataType.UINT8)
        assembly.output("overlay", overlaid(op, picture, heat), [BATCH, "T", *size, 3], ir.DataType.UINT8)
    return _closed(assembly.model)


def _scene(assembly: Assembly, wanted: Asked) -> tuple[Scene, ir.Value | None]:
    """The file's inputs, and the picture as the network sees it where one comes in."""
    bundle, op, seen = assembly.bundle, assembly.op, None
    if wanted.picture_input:
        resized = any(step["step"] in ("resize", "crop") for step in bundle.steps)
        sides: Sequence[int | str] = ("H", "W") if resized else _image_size(bundle)
        picture = assembly.input("picture", [BATCH, *sides, 3], ir.DataType.UINT8)
    else:
        image = assembly.input(bundle.image.name, bundle.image.shape, TYPES[bundle.image.dtype])
    others = {
        f"input {entry.name}": assembly.input(entry.name, entry.shape, TYPES[entry.dtype]) for entry in bundle.others
    }
    target = assembly.input("target", [BATCH, "T"], ir.DataType.INT64)
    free = {name: _free_input(assembly, name) for name in wanted.free}
    scene = Scene(
        assembly=assembly,
        method=wanted.method,
        parameters=wanted.parameters,
        image=target if wanted.picture_input else image,  # the picture's image takes its place at once
        others=others,
        target=target,
        free=free,
        rows=wanted.rows,
        unrolled=wanted.unrolled,
    )
    if wanted.picture_input:
        made = prepared(op, picture, bundle.steps, scene.size, TYPES[bundle.image.dtype])
        scene.image, seen = made.rows, made.seen
        scene.image.shape = ir.Shape(list(bundle.image.shape))
        scene.image.type = ir.TensorType(TYPES[bundle.image.dtype])
    return scene, seen


def _image_size(bundle: Bundle) -> tuple[int, int]:
    """Height and width of the network's input, all of whose axes are known."""
    height, width = (int(bundle.image.shape[axis]) for axis in SPATIAL[str(bundle.image.layout)])
    return height, width


def _free_input(assembly: Assembly, name: str) -> ir.Value:
    if name == "noise":
        return assembly.input(name, [BATCH])
    if name == "seed":
        return assembly.input(name, [1], ir.DataType.INT64)
    if name in ("epsilon", "gamma", "alpha"):
        return assembly.input(name, [1])
    shape = assembly.bundle.image.shape if name == "fill" else assembly.bundle.value.shape
    return assembly.input(name, [f"{name}_{axis}" for axis in range(len(shape))])


def _map_shape(scene: Scene) -> list[int | str]:
    """The attribution's shape: the explained value's, or one number a pixel or place."""
    bundle, method = scene.bundle, scene.method
    if _is_of_value(method, bundle):
        return [BATCH, "T", *bundle.value.shape[1:]]
    size: Sequence[int | str] = scene.size
    if scene.parameters.get("upsample") == "none":
        size = ["h", "w"]
    return [BATCH, "T", 1, *size] if bundle.image.layout == "NCHW" else [BATCH, "T", *size, 1]


def _is_of_value(method: Method, bundle: Bundle) -> bool:
    """Whether the map has the shape of the explained value, rather than one number a pixel."""
    return not (method.loop == "cam" or bundle.graphs[method.graph].name.startswith("masked"))


def _closed(model: ir.Model) -> ir.Model:
    """Sorted, without dead nodes, its shapes inferred."""
    ir.passes.Sequential(
        passes.TopologicalSortPass(),
        passes.RemoveUnusedNodesPass(),
        passes.NameFixPass(),
    )(model)
    infer_shapes(model)
    # Each graph is portable by itself; side by side they may read one weight in two ways.
    make_portable(model)
    passes.TopologicalSortPass()(model)
    return model


@contextlib.contextmanager
def _new_file(target: Path) -> Iterator[Path]:
    """A temporary file that takes the name `target` when the block ends well, and vanishes when it doesn't."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".onnx", dir=target.parent)
    except OSError as error:
        raise OutputError(f"{target.parent}: can't be written to ({error.strerror})") from error
    file = Path(name)
    try:
        yield file
        os.fsync(handle)
        file.chmod(0o644)
        file.replace(target)
    except OSError as error:
        raise OutputError(f"{target}: can't be written ({error.strerror or error})") from error
    finally:
        os.close(handle)
        file.unlink(missing_ok=True)


def _write(model: ir.Model, file: Path, bundle: Bundle, wanted: Asked, name: str) -> None:
    """Writes the file with its description: a short form of it first, for the memory that it takes."""
    ir.save(assembled(bundle, wanted, 2 * wanted.rows), file)
    entry = graph_entry(model, bundle, name)
    memory = measured_memory(file.parent, {file.stem: [memory_runs(model)]})[file.stem]
    entry |= {"bytes_per_row": memory[0], "bytes_per_run": memory[1]}
    told = description_of(bundle.path)
    text = json.dumps(single_description(told, bundle, wanted, entry), ensure_ascii=False, allow_nan=False)
    model.metadata_props[METADATA] = text
    ir.save(model, file)
    onnx.checker.check_model(str(file), full_check=False)
