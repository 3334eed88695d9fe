"""Channels that are joined: the rule of what reads them may find the gradient of each part by itself.

It gives back the parts' gradients joined, which Concat's rule takes apart without a Split: onnxruntime's blocked layout
has none, so that the whole would be led out of it and the parts back in.
"""

import onnx_ir as ir

from onnxplain_export.emitter import Emitter, attribute, dims


def joined_parts(op: Emitter, x: ir.Value | None, reader: str) -> list[ir.Value]:
    """What x [N, C, H, W] is joined from along its channels, of known numbers, if one node reads it, a `reader`.

    Else nothing; nor where the gradient of x itself is asked for.
    """
    maker = None if x is None else x.producer()
    if x is None or maker is None or maker.op_type != "Concat" or attribute(maker, "axis") != 1 or x in op.ends:
        return []
    parts = [part for part in maker.inputs if part is not None]
    known = all(isinstance((dims(part) or (None, None))[1], int) for part in parts)
    alone = known and [node.op_type for node in readers_of(op, x)] == [reader] and len(dims(x) or ()) == 4
    return parts if len(parts) > 1 and alone and not {"Concat", reader} & op.changed else []


def readers_of(op: Emitter, value: ir.Value) -> list[ir.Node]:
    """The nodes from which gradients of `value` come."""
    return [node for node, _ in value.uses() if any(op.wants(output) for output in node.outputs)]
