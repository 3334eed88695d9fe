"""Sums of a graph's outputs over a table of steps: an ONNX Loop over parts of the table, or as many copies of it."""

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxplain_export.emitter import Emitter
from onnxplain_export.single.scene import Scene

Table = NDArray[np.float32]


def summed(scene: Scene, graph: str, outputs: Sequence[str], table: Table, **given: ir.Value) -> list[ir.Value]:
    """Σ over the steps of `table` [S, columns] of a bundle graph's outputs [N or 1, …]."""
    table = table[: scene.most_steps]
    steps = scene.op.floats(table[None])
    feeds = scene.feeds(graph, steps=steps, **given)
    if scene.unrolled:
        return _copies(scene, graph, outputs, table, feeds)
    return _loop(scene, graph, outputs, len(table), feeds)


def _copies(
    scene: Scene, graph: str, outputs: Sequence[str], table: Table, feeds: dict[str, ir.Value]
) -> list[ir.Value]:
    sums: list[ir.Value] = []
    for start in range(0, len(table), scene.rows):
        part = scene.op.floats(table[None, start : start + scene.rows])
        found = scene.assembly.embed(graph, {**feeds, "steps": part})
        parts = [found[name] for name in outputs]
        sums = [scene.op.Add(total, part) for total, part in zip(sums, parts, strict=True)] if sums else parts
    return sums


def _loop(scene: Scene, graph: str, outputs: Sequence[str], count: int, feeds: dict[str, ir.Value]) -> list[ir.Value]:
    """A turn takes so many steps that images × steps × targets are `rows` at most, and at least one."""
    op = scene.op
    shares = op.Shape(feeds["target"], start=0, end=2)
    steps_a_turn = op.Max(op.Div(scene.rows, op.ReduceProd(shares, keepdims=0)), op.constant(1, np.int64))
    turns = op.Div(op.Add(op.Sub(count, op.constant(1, np.int64)), steps_a_turn), steps_a_turn)
    shapes = [scene.assembly.shape_of(graph, name) for name in outputs]
    zeros = [op.Expand(op.floats(0.0), _at_run_time(op, shape, shares)) for shape in shapes]
    body = _body(scene, graph, outputs, feeds, steps_a_turn, shapes)
    made = op.Loop(turns, op.constant(True, np.bool_), *zeros, body=body, outputs=len(outputs))
    return list(made) if len(outputs) > 1 else [made]


def _body(
    scene: Scene,
    graph: str,
    outputs: Sequence[str],
    feeds: dict[str, ir.Value],
    steps_a_turn: ir.Value,
    shapes: Sequence[Sequence[int | str]],
) -> ir.Graph:
    turn = ir.val("loop/turn", ir.DataType.INT64, [])
    going = ir.val("loop/going", ir.DataType.BOOL, [])
    sums = [ir.val(f"loop/{name}", ir.DataType.FLOAT, list(shape)) for name, shape in zip(outputs, shapes, strict=True)]
    body = ir.Graph([turn, going, *sums], [], nodes=[], name="turn")
    op = Emitter(body, "loop")
    start = op.Unsqueeze(op.Mul(turn, steps_a_turn), scene.op.constant([0], np.int64))
    end = op.Add(start, steps_a_turn)  # behind the table's end, Slice stops there
    part = op.Slice(feeds["steps"], start, end, scene.op.constant([1], np.int64))
    found = scene.assembly.embed(graph, {**feeds, "steps": part}, into=body)
    body.outputs.append(op.Identity(going))
    for total, name, shape in zip(sums, outputs, shapes, strict=True):
        added = op.Add(total, found[name])
        added.shape, added.type = ir.Shape(list(shape)), ir.TensorType(ir.DataType.FLOAT)
        body.outputs.append(added)
    body.outputs[0].shape, body.outputs[0].type = ir.Shape([]), ir.TensorType(ir.DataType.BOOL)
    return body


def _at_run_time(op: Emitter, shape: Sequence[int | str], shares: ir.Value) -> ir.Value:
    """A shape as a tensor, where N and T are those of the targets."""
    if all(isinstance(axis, int) for axis in shape):
        return op.constant([int(axis) for axis in shape], np.int64)
    return op.Concat(shares, [int(axis) for axis in shape[2:]], axis=0)
