"""Changes of the derivative rules that change no derivative, and why; keyed by what `rule_faults.py` calls them."""

SHORTCUT = "the general form, which the shortcut stands for, says the same"
FACTOR = "what stands for a zero is divided out again where it counts"
BY_SIGN = "negative axes and positions mean the same to the operators"

RANGE = "return (op.ReduceSum(g, keepdims=0), {}, op.ReduceSum(op.Mul(g, numbers), keepdims=0))"

EQUIVALENT: dict[str, str] = {
    "activation.relu: node.outputs[0] → node.inputs[0]": "x and y are positive at the same places",
    "activation.elu: alpha > 0 → alpha >= 0": "for α = 0 both signs choose y + 0 where x ≤ 0",
    "activation._at_most: 1.0 → 1.001": "beside the steepness float32 rounds it to 1",
    "activation._at_least: 1.0 → 1.001": "beside the steepness float32 rounds it to 1",
    "activation.below: 2.0 → 2.002": "any ramp this steep is a step between neighbouring numbers",
    "activation.below: 2.0 → 4.0": "any ramp this steep is a step between neighbouring numbers",
    "activation._along_low: op.ReduceSum(op.Where(effective, g, 0.0), keepdims=0) → "
    "op.ReduceSum(op.Where(effective, g, 0.0), keepdims=1)": "reshaped to the bound's shape afterwards",
    "activation._along_high: op.ReduceSum(op.Where(effective, g, 0.0), keepdims=0) → "
    "op.ReduceSum(op.Where(effective, g, 0.0), keepdims=1)": "reshaped to the bound's shape afterwards",
    "indexing._one_index_axis: op.Concat(before, [-1], after, axis=0) → "
    "op.Concat(before, [-1], after, axis=-1)": BY_SIGN,
    "indexing._one_index_axis: sum((not isinstance(size, int) for size in sizes)) <= 1 → "
    "sum((not isinstance(size, int) for size in sizes)) < 1": SHORTCUT,
    "indexing._slice_arguments: node.inputs[0] → node.inputs[1]": "only whether there is one is asked",
    "indexing._slice_at_run_time: op.ScatterElements(zeros, left, op.Reshape(g, last), reduction='add') → "
    "op.ScatterElements(zeros, left, op.Reshape(g, last))": "a slice reads no entry twice",
    "emitter._sum_to_at_run_time: self.Unsqueeze(lead, [0]) → self.Unsqueeze(lead, [-1])": "of a number the same",
    "emitter._sum_to_at_run_time: self.ReduceSum(g, axes, keepdims=1, noop_with_empty_axes=1) → "
    "self.ReduceSum(g, axes, noop_with_empty_axes=1, keepdims=0)": "reshaped to the operand's shape afterwards",
    "linear._subscripts: '...' if '...' in left else '' → '...'": "without an ellipsis its letters are none",
    "emitter.reshape_like: sum((not isinstance(axis, int) for axis in known)) <= 1 → "
    "sum((not isinstance(axis, int) for axis in known)) < 1": SHORTCUT,
    "linear._spans: not own → own": "ones along an index that another operand has change nothing",
    "linear._spans: not known → known": "ones along an index that another operand has change nothing",
    "linear.gemm: g if beta == 1.0 else op.Mul(g, beta) → op.Mul(g, beta)": SHORTCUT,
    "pooling._lp_factors: 1.0 → 1.001": "its power is replaced by 0",
    "pooling._lp_factors: 1.0 → 2.0": "its power is replaced by 0",
    "pooling._scaled: g if factors.min() == 1 else op.Mul(g, float(factors.min())) → "
    "op.Mul(g, float(factors.min()))": SHORTCUT,
    "pooling._spread: blocks * lane.stride → blocks": SHORTCUT,
    **{
        f"activation.positive: {number} → {other}": "at every y > 1e-30 still 1, at 0 still 0"
        for number, others in {"1e+30": (1e30 * 1.001, 2e30), "1e-20": (1e-20 * 1.001, 2e-20)}.items()
        for other in others
    },
    "recurrent._one: op.Squeeze(value, [axis]) if count == 1 else op.Gather(value, direction, axis=axis) → "
    "op.Gather(value, direction, axis=axis)": SHORTCUT,
    "recurrent._runs: op.Gather(op.Shape(x), 0, axis=0) → op.Gather(op.Shape(x), 0, axis=-1)": BY_SIGN,
    "reduction.reduce_prod: 1.0 → 2.0": FACTOR,
    "reduction.reduce_prod: 1.0 → 1.001": FACTOR,
    "resampling.interpolation_matrix: 0.0001 → 0.0001001": "two evaluators differ by rounding or by whole steps",
    "resampling.interpolation_matrix: 0.0001 → 0.0002": "two evaluators differ by rounding or by whole steps",
    "resampling._pad_widths: node.inputs[0] → node.outputs[0]": "only the number of axes is asked",
    "resampling._zeros_around: op.Pad(g, pads, 0.0) if any(pads) else g → op.Pad(g, pads, 0.0)": SHORTCUT,
    "sampling._read: op.Concat(op.Slice(shape, [0], [1]), op.Shape(x, start=1, end=2), op.Slice(shape, [1], [3]), "
    "axis=0) → op.Concat(op.Slice(shape, [0], [1]), op.Shape(x, start=1, end=2), op.Slice(shape, [1], [3]), "
    "axis=-1)": BY_SIGN,
    "convolution._flipped: window.kernel[axis] > 1 → window.kernel[axis] >= 1": SHORTCUT,
    "convolution._weight_gradient: max(window.strides) > 1 → max(window.strides) >= 1": SHORTCUT,
    "gates.with_slope: op.expand_like(op.floats(1.0), x) if self.name == 'Affine' else op.floats(1.0) → "
    "op.expand_like(op.floats(1.0), x)": SHORTCUT,
    "pooling._scaled: factors.min() < factors.max() → factors.min() <= factors.max()": SHORTCUT,
    "pooling._spread: blocks * lane.stride → blocks / lane.stride": SHORTCUT,
    "recurrent._gru: op.Split(rb, [2 * d.hidden, d.hidden], axis=0, outputs=2) → "
    "op.Split(rb, [2 * d.hidden, d.hidden], outputs=2, axis=-1)": BY_SIGN,
    "recurrent._hidden: node.inputs[2] → node.inputs[1]": "only whether there is one is asked; both are required",
    "resampling._resize_model #2: shape[:2] → shape[2:]": "a declared shape; onnxruntime finds its own",
    "resampling.interpolation_matrix: 2.0 → 4.0": "any growth of the axis beside it will do",
    "scatter._grouped: end - start → end + start": SHORTCUT,
    "scatter._of_product: 1.0 → 2.0": FACTOR,
    "scatter._of_product: 1.0 → 1.001": FACTOR,
    "scatter.scatter_elements: attribute(node, 'axis', 0) % len(ranked_dims(node, data)) → "
    "attribute(node, 'axis', 0)": BY_SIGN,
    "spectral._adjoint: node.op_type == 'STFT' → node.op_type != 'STFT'": "DFT pads and cuts to its length by itself",
    "spectral._adjoint: length // 2 → length": "DFT pads and cuts to its length by itself",
    "spectral._fitted: after < before → after <= before": SHORTCUT,
    "window.mirrored_pads: min(pads) >= 0 → min(pads) > 0": SHORTCUT,
    "window.needed: self.reach + self.offsets[-1] + 1 → self.reach + self.offsets[-1]": (
        "the last position, where it is outside the image, is read by no tap that is compared"
    ),
    **{
        f"shape.range_: {RANGE.format('op.floats(0.0)')} → {RANGE.format(form.format('op.floats(0.0)'))}": "it is 0"
        for form in ("op.Mul({}, 0.0)", "op.Neg({})", "op.Mul({}, 1.001)")
    },
}
