"""The geometry that convolutions and pools share: which input positions each output position reads."""

from dataclasses import dataclass

import onnx_ir as ir

from onnxplain.errors import NoGradientError
from onnxplain_export.emitter import attribute, ranked_dims


@dataclass(frozen=True)
class Lane:
    """A sliding window along one spatial axis: output o reads the inputs `o * stride + tap * dilation - begin`.

    `axis` counts from the batch axis; `rest` are the numbers of outputs along the spatial axes that follow.
    """

    axis: int
    size: int
    count: int
    kernel: int
    stride: int
    dilation: int
    begin: int
    end: int
    rest: tuple[int, ...]

    @property
    def offsets(self) -> list[int]:
        """Where the taps lie in the window."""
        return [tap * self.dilation for tap in range(self.kernel)]

    @property
    def needed(self) -> int:
        """The positions from the first window's start to the last one's end."""
        return (self.count - 1) * self.stride + self.offsets[-1] + 1

    @property
    def reading(self) -> list[int]:
        """The offsets of the taps that are not always in the padding."""
        return [offset for offset in self.offsets if len(range(*self.inside(offset)))]

    def inside(self, offset: int) -> tuple[int, int]:
        """The first output whose tap at `offset` reads the input and not the padding, and the first past the last."""
        shift = offset - self.begin
        first = min(max(-(shift // self.stride), 0), self.count)
        return first, max(min((self.size - 1 - shift) // self.stride + 1, self.count), first)


@dataclass(frozen=True)
class Window:
    """A sliding window, one number per spatial axis."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    begin: tuple[int, ...]
    end: tuple[int, ...]
    ceil: bool

    @property
    def rank(self) -> int:
        """The number of spatial axes."""
        return len(self.kernel)

    @property
    def pads(self) -> list[int]:
        """All begins, then all ends, as the `pads` attribute holds them."""
        return [*self.begin, *self.end]

    @property
    def spans(self) -> tuple[int, ...]:
        """The distance from the first to the last tap, both included."""
        return tuple((k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations, strict=True))

    @property
    def mirrored_pads(self) -> list[int] | None:
        """The pads of the adjoint where it is a window of stride 1 too: not with strides or pads beyond the span."""
        pads = [span - 1 - pad for span, pad in zip(self.spans * 2, self.pads, strict=True)]
        return pads if max(self.strides) == 1 and min(pads) >= 0 else None

    def remainders(self, sizes: tuple[int, ...]) -> list[int]:
        """Per axis, the padded input positions past the last window: a transposed convolution's `output_padding`."""
        axes = zip(sizes, self.begin, self.end, self.spans, self.strides, strict=True)
        return [(size + begin + end - span) % stride for size, begin, end, span, stride in axes]

    def lanes(self, sizes: tuple[int, ...]) -> list[Lane]:
        """The window axis by axis, over an input of these spatial sizes."""
        counts = [self._count(axis, size) for axis, size in enumerate(sizes)]
        columns = zip(self.kernel, self.strides, self.dilations, self.begin, self.end, strict=True)
        return [
            Lane(axis + 2, sizes[axis], counts[axis], *numbers, rest=tuple(counts[axis + 1 :]))
            for axis, numbers in enumerate(columns)
        ]

    def _count(self, axis: int, size: int) -> int:
        """The number of windows; with `ceil` the last may overhang, as long as it starts before the end pad."""
        room = size + self.begin[axis] + self.end[axis] - self.spans[axis]
        stride = self.strides[axis]
        if not self.ceil:
            return room // stride + 1
        count = -(-room // stride) + 1
        return count - 1 if (count - 1) * stride >= size + self.begin[axis] else count


def window_of(node: ir.Node) -> Window:
    """The window of a convolution or pool; its padding must be explicit."""
    if attribute(node, "auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        raise NoGradientError(f"{node.op_type} (node {node.name!r}): auto_pad must be resolved to explicit pads first")
    kernel = attribute(node, "kernel_shape") or _kernel_of_weight(node)
    rank = len(kernel)
    pads = attribute(node, "pads", [0] * (2 * rank))
    return Window(
        kernel=tuple(kernel),
        strides=tuple(attribute(node, "strides", [1] * rank)),
        dilations=tuple(attribute(node, "dilations", [1] * rank)),
        begin=tuple(pads[:rank]),
        end=tuple(pads[rank:]),
        ceil=bool(attribute(node, "ceil_mode", 0)),
    )


def spatial_sizes(node: ir.Node) -> tuple[int, ...]:
    """The sizes of the first input's axes past batch and channel; raises NoGradientError where one is free."""
    known = ranked_dims(node, node.inputs[0])
    sizes = tuple(axis for axis in known[2:] if isinstance(axis, int))
    if len(sizes) != len(known) - 2:
        raise NoGradientError(
            f"{node.op_type} (node {node.name!r}): the gradient needs a fixed spatial input size, not {known}; "
            "export the model with a fixed image size"
        )
    return sizes


def lanes_of(node: ir.Node) -> list[Lane]:
    """A pool's window axis by axis; raises NoGradientError where the number of windows is in doubt."""
    lanes = window_of(node).lanes(spatial_sizes(node))
    counts, known = tuple(lane.count for lane in lanes), ranked_dims(node, node.outputs[0])
    if any(isinstance(axis, int) and axis != count for axis, count in zip(known[2:], counts, strict=True)):
        # onnx 1.23 counts a last window that ceil_mode lets start inside the end pad; onnxruntime 1.31 and torch don't.
        raise NoGradientError(
            f"{node.op_type} (node {node.name!r}): onnxruntime computes {counts} windows where the model says "
            f"{known[2:]}; replace ceil_mode by larger pads at the end"
        )
    return lanes


def _kernel_of_weight(node: ir.Node) -> list[int]:
    known = ranked_dims(node, node.inputs[1])
    if not all(isinstance(axis, int) for axis in known[2:]):
        raise NoGradientError(f"{node.op_type} (node {node.name!r}): the kernel's shape is unknown")
    return [axis for axis in known[2:] if isinstance(axis, int)]
