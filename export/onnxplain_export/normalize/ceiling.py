"""Pools whose ceil_mode would let a last window start in the padding at the end, where there is nothing to read.

onnxruntime (1.31, at every opset) and torch leave that window out, as the standard says since opset 22; onnx's shape
inference for earlier opsets counts it. Here the pads say how many windows there are, and nobody needs to guess.
"""

import onnx_ir as ir

from onnxplain_export.emitter import attribute, dims
from onnxplain_export.vjp.window import Lane, window_of

POOLS = frozenset({"AveragePool", "LpPool", "MaxPool"})


def leave_out_empty_windows(model: ir.Model) -> int:
    """Spells out the pads of such pools; returns how many there were. Shapes must have been inferred up to them."""
    return sum(_spell_out(node) for node in model.graph.all_nodes() if node.op_type in POOLS and node.domain == "")


def _spell_out(node: ir.Node) -> bool:
    if not attribute(node, "ceil_mode", 0) or attribute(node, "auto_pad", "NOTSET") != "NOTSET":
        return False
    known = None if node.inputs[0] is None else dims(node.inputs[0])
    sizes = tuple(axis for axis in (known or ())[2:] if isinstance(axis, int))
    window = window_of(node)
    if known is None or len(sizes) != len(known) - 2 or len(sizes) != window.rank:
        return False
    lanes = window.lanes(sizes)
    if not any(_has_empty_window(lane) for lane in lanes):
        return False
    ends = [lane.needed - lane.begin - lane.size for lane in lanes]  # negative where inputs at the end are never read
    counted = node.op_type == "AveragePool" and attribute(node, "count_include_pad", 0) and any(window.pads)
    if counted and any(end > lane.end for end, lane in zip(ends, lanes, strict=True)):
        # The overhang of another axis isn't counted as its pad would be: the pads shrink where windows are left out.
        ends = [end if _has_empty_window(lane) else lane.end for end, lane in zip(ends, lanes, strict=True)]
        if min(ends) < 0:
            return False
    else:
        node.attributes["ceil_mode"] = ir.AttrInt64("ceil_mode", 0)
        if node.op_type == "AveragePool" and not counted:
            node.attributes["count_include_pad"] = ir.AttrInt64("count_include_pad", 0)
    node.attributes["pads"] = ir.AttrInt64s("pads", [*window.begin, *(max(end, 0) for end in ends)])
    return True


def _has_empty_window(lane: Lane) -> bool:
    """Whether a window after the last one would still lie, by its first tap at least, inside the padded input."""
    room = lane.size + lane.begin + lane.end - lane.offsets[-1] - 1
    return lane.count < -(-room // lane.stride) + 1
