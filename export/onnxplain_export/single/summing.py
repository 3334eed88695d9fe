"""Sums of a graph's outputs over a table of steps: an ONNX Loop over parts of the table, or as many copies of it.

onnxruntime brings a body into its fastest form only where the body holds its weights itself. So that the file holds
them once, the network's scores, which settle the targets, are found inside the body too, in its first turn.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxplain_export.emitter import Emitter
from onnxplain_export.normalize import BATCH
from onnxplain_export.single.scene import Scene

Table = NDArray[np.float32]
Shape = Sequence[int | str]


def summed(scene: Scene, graph: str, outputs: Sequence[str], table: Table) -> list[ir.Value]:
    """Σ over the steps of `table` [S, columns] of a bundle graph's outputs [N or 1, …]."""
    table = table[: scene.most_steps]
    if scene.unrolled:
        return _copies(scene, graph, outputs, table)
    return _Turns(scene, graph, outputs, table, [scene.assembly.shape_of(graph, name) for name in outputs]).made()


def combined(scene: Scene, graph: str, table: Table, weights: Table, **given: ir.Value) -> ir.Value:
    """Σ_k weights[k] · scores[:, k] of the graph's scores [N, S, T] at the steps of a table: [N, T, columns].

    `weights` is [S, columns]; `given` is fed as it is, by role.
    """
    table, weights = table[: scene.most_steps], weights[: scene.most_steps]
    if scene.unrolled:
        return _copies(scene, graph, ("scores",), table, weights, given)[0]
    return _Turns(scene, graph, ("scores",), table, [[BATCH, "T", weights.shape[1]]], weights, given).made()[0]


def _copies(
    scene: Scene,
    graph: str,
    outputs: Sequence[str],
    table: Table,
    weights: Table | None = None,
    given: Mapping[str, ir.Value] | None = None,
) -> list[ir.Value]:
    sums: list[ir.Value] = []
    for start in range(0, len(table), scene.rows):
        rows = slice(start, start + scene.rows)
        found = scene.assembly.embed(graph, scene.feeds(graph, steps=scene.op.floats(table[None, rows]), **given or {}))
        parts = [found[name] for name in outputs]
        if weights is not None:
            parts = [_weighed(scene.op, part, scene.op.floats(weights[rows])) for part in parts]
        sums = [scene.op.Add(total, part) for total, part in zip(sums, parts, strict=True)] if sums else parts
    return sums


def _weighed(op: Emitter, scores: ir.Value, weights: ir.Value) -> ir.Value:
    """[N, K, T] and [K, columns] → [N, T, columns]."""
    return op.MatMul(op.Transpose(scores, perm=[0, 2, 1]), weights)


class _Turns:
    """The loop: its state is the scores and the settled targets, known from the first turn on, and the sums."""

    def __init__(
        self,
        scene: Scene,
        graph: str,
        outputs: Sequence[str],
        table: Table,
        shapes: Sequence[Shape],
        weights: Table | None = None,
        given: Mapping[str, ir.Value] | None = None,
    ) -> None:
        self.scene, self.graph, self.outputs, self.table, self.shapes = scene, graph, outputs, table, shapes
        self.weights, self.given = weights, given or {}
        self.classes: Shape = [BATCH, *scene.bundle.scores.shape[1:]]
        # Where the explained value lies inside the network, the scores have been found with it.
        self.scores_known = scene.bundle.inside is not None
        # So many steps that images × steps × targets are `rows` at most, and at least one.
        op = scene.op
        self.shares = op.Shape(scene.target, start=0, end=2)
        fitting = op.Div(op.constant(scene.rows, np.int64), op.ReduceProd(self.shares, keepdims=0))
        self.steps_a_turn = op.Max(fitting, op.constant(1, np.int64))

    def made(self) -> list[ir.Value]:
        """The sums."""
        scene, op = self.scene, self.scene.op
        last = op.constant(len(self.table) - 1, np.int64)
        turns = op.Div(op.Add(last, self.steps_a_turn), self.steps_a_turn)
        if self.scores_known:
            known = [scene.scores, scene.settled]
        else:
            images = op.Shape(scene.target, start=0, end=1)
            empty = op.Concat(images, [int(size) for size in self.classes[1:]], axis=0)
            known = [op.Expand(op.floats(0.0), empty), scene.target]
        state = [*known, *(op.Expand(op.floats(0.0), _at_run_time(op, shape, self.shares)) for shape in self.shapes)]
        scores, _, *sums = op.Loop(turns, op.constant(True, np.bool_), *state, body=self._body(), outputs=len(state))
        scene.tell(scores)
        return list(sums)

    def _body(self) -> ir.Graph:
        turn, going = ir.val("loop/turn", ir.DataType.INT64, []), ir.val("loop/going", ir.DataType.BOOL, [])
        scores = ir.val("loop/scores", ir.DataType.FLOAT, list(self.classes))
        settled = ir.val("loop/target", ir.DataType.INT64, [BATCH, "T"])
        sums = [
            ir.val(f"loop/{name}", ir.DataType.FLOAT, list(shape))
            for name, shape in zip(self.outputs, self.shapes, strict=True)
        ]
        body = ir.Graph([turn, going, scores, settled, *sums], [], nodes=[], name="turn")
        op = Emitter(body, "loop")
        if not self.scores_known:
            scores, settled = self._answered(op, turn, scores, settled)
        start = op.Mul(turn, self.steps_a_turn)
        # Behind a table's end Slice stops.
        part = [op.Unsqueeze(edge, [0]) for edge in (start, op.Add(start, self.steps_a_turn))]
        found = self.scene.assembly.embed(self.graph, self._feeds(op, part, scores, settled), body, body)
        _give(op, going, [], ir.DataType.BOOL)
        _give(op, scores, self.classes)
        _give(op, settled, [BATCH, "T"], ir.DataType.INT64)
        for total, name, shape in zip(sums, self.outputs, self.shapes, strict=True):
            _give(op, op.Add(total, self._term(op, found[name], part)), shape)
        return body

    def _term(self, op: Emitter, found: ir.Value, part: Sequence[ir.Value]) -> ir.Value:
        if self.weights is None:
            return found
        return _weighed(op, found, op.Slice(self.scene.op.floats(self.weights), *part, [0]))

    def _answered(self, op: Emitter, turn: ir.Value, scores: ir.Value, settled: ir.Value) -> tuple[ir.Value, ir.Value]:
        """Scores and targets: found in the first turn, passed on in the others."""
        first, others = (ir.Graph([], [], nodes=[], name=name) for name in ("first", "others"))
        scene, asked = self.scene, Emitter(first, "loop/first")
        feeds = {"image": scene.image, **scene.others}
        found = scene.assembly.embed("forward", feeds, into=first, weights_in=op.graph)["scores"]
        _give(asked, found, self.classes)
        _give(asked, scene.settled_by(asked, found), [BATCH, "T"], ir.DataType.INT64)
        kept = Emitter(others, "loop/others")
        _give(kept, scores, self.classes)
        _give(kept, settled, [BATCH, "T"], ir.DataType.INT64)
        begins = op.Equal(turn, op.constant(0, np.int64))
        made = op.If(begins, then_branch=first, else_branch=others, outputs=2)
        for value, like in zip(made, first.outputs, strict=True):
            value.shape, value.type = like.shape, like.type
        return made[0], made[1]

    def _feeds(
        self, op: Emitter, part: Sequence[ir.Value], scores: ir.Value, settled: ir.Value
    ) -> Mapping[str, ir.Value]:
        """What a turn's run is fed: its part of the table, and what the scores say."""
        scene = self.scene
        given = {**self.given, "target": settled}
        given["steps"] = op.Slice(scene.op.floats(self.table[None]), *part, [1])
        if scene.bundle.graphs[self.graph].takes("reference"):
            given["reference"] = scene.explained(op, scores, settled)
        return scene.feeds(self.graph, **given)


def _give(op: Emitter, value: ir.Value, shape: Shape, dtype: ir.DataType = ir.DataType.FLOAT) -> None:
    """Makes a value an output of the body."""
    result = op.Identity(value)
    result.shape, result.type = ir.Shape(list(shape)), ir.TensorType(dtype)
    op.graph.outputs.append(result)


def _at_run_time(op: Emitter, shape: Shape, shares: ir.Value) -> ir.Value:
    """A shape as a tensor, where N and T are those of the targets."""
    if all(isinstance(axis, int) for axis in shape):
        return op.constant([int(axis) for axis in shape], np.int64)
    return op.Concat(shares, [int(axis) for axis in shape[2:]], axis=0)
