"""Random convolutions and pools."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch.nn.functional as F  # noqa: N812
from hypothesis import assume
from hypothesis import strategies as st

from rule_drawing import away_from_zero, note
from rule_harness import Case


@dataclass(frozen=True)
class Geometry:
    """A window over an input of these spatial sizes."""

    sizes: list[int]
    kernel: list[int]
    strides: list[int]
    dilations: list[int]
    begin: list[int]
    end: list[int]

    @property
    def attributes(self) -> dict[str, Any]:
        """As the node holds them."""
        return {
            "kernel_shape": self.kernel,
            "strides": self.strides,
            "dilations": self.dilations,
            "pads": [*self.begin, *self.end],
        }

    def reads(self, axis: int, ceil: bool) -> np.ndarray:
        """Which taps of which windows along an axis read an input, [windows, taps]."""
        size, stride = self.sizes[axis], self.strides[axis]
        span = (self.kernel[axis] - 1) * self.dilations[axis] + 1
        room = size + self.begin[axis] + self.end[axis] - span
        count = (-(-room // stride) if ceil else room // stride) + 1
        if ceil and (count - 1) * stride >= size + self.begin[axis]:
            count -= 1
        taps = np.arange(self.kernel[axis]) * self.dilations[axis] - self.begin[axis]
        places = np.arange(count)[:, None] * stride + taps
        return (places >= 0) & (places < size)


@st.composite
def geometries(draw: st.DrawFn, rank: int, pads: str) -> Geometry:
    """A window of which at least one fits; `pads`: "any" number, or "pool" for less than the kernel."""
    columns = []
    for _ in range(rank):
        kernel = draw(st.integers(1, 3))
        dilation = draw(st.integers(1, 3)) if kernel > 1 else 1
        span = (kernel - 1) * dilation + 1
        widest = kernel - 1 if pads == "pool" else span + 1
        begin, end = draw(st.integers(0, widest)), draw(st.integers(0, widest))
        smallest = max(span - begin - end, 1)
        size = draw(st.integers(smallest, smallest + (5 if rank < 3 else 2)))
        columns.append((size, kernel, draw(st.integers(1, 3)), dilation, begin, end))
    return Geometry(*(list(column) for column in zip(*columns, strict=True)))


def _convolved(geometry: Geometry, group: int) -> Any:
    """torch's convolution of the image padded beforehand, which may be uneven."""
    pads = [width for pair in zip(geometry.begin[::-1], geometry.end[::-1], strict=True) for width in pair]
    function = [F.conv1d, F.conv2d, F.conv3d][len(geometry.sizes) - 1]
    strides, dilations = geometry.strides, geometry.dilations
    return lambda x, w, b=None: function(F.pad(x, pads), w, b, strides, 0, dilations, group)


@st.composite
def conv(draw: st.DrawFn) -> Case:
    """1-D to 3-D, grouped and depthwise, any strides, dilations and pads, differentiated at any of its inputs."""
    geometry = draw(geometries(draw(st.integers(1, 3)), "any"))
    group = draw(st.integers(1, 3))
    inputs, outputs = draw(st.integers(1, 2)), draw(st.integers(1, 2))
    arrays: list[Any] = [
        (draw(st.integers(1, 2)), group * inputs, *geometry.sizes),
        (group * outputs, inputs, *geometry.kernel),
    ]
    arrays += [(group * outputs,)] if draw(st.booleans()) else []
    wrt = draw(st.sampled_from([(0,), (0,), (1,), (0, 1), tuple(range(len(arrays)))]))
    attributes = geometry.attributes | {"group": group}
    fed = () if 0 in wrt else (0,)
    described = note(wrt=wrt, **attributes)
    return Case("Conv", arrays, attributes, wrt, described, _convolved(geometry, group), fed=fed, batched=(0,))


@st.composite
def conv_transpose(draw: st.DrawFn) -> Case:
    """The same of its transpose, with output_padding below the stride."""
    geometry = draw(geometries(draw(st.integers(1, 3)), "any"))
    extra = [draw(st.integers(0, stride - 1)) for stride in geometry.strides]
    columns = zip(geometry.sizes, geometry.strides, geometry.kernel, geometry.dilations, extra, strict=True)
    full = [(size - 1) * stride + (k - 1) * d + 1 + more for size, stride, k, d, more in columns]
    cut = [min(begin, width - 1) for begin, width in zip(geometry.begin, full, strict=True)]
    after = [min(end, width - 1 - begin) for end, width, begin in zip(geometry.end, full, cut, strict=True)]
    group = draw(st.integers(1, 3))
    inputs, outputs = draw(st.integers(1, 2)), draw(st.integers(1, 2))
    arrays: list[Any] = [
        (draw(st.integers(1, 2)), group * inputs, *geometry.sizes),
        (group * inputs, outputs, *geometry.kernel),
    ]
    arrays += [(group * outputs,)] if draw(st.booleans()) else []
    wrt = draw(st.sampled_from([(0,), (0,), (1,), (0, 1), tuple(range(len(arrays)))]))
    attributes = geometry.attributes | {"group": group, "output_padding": extra, "pads": [*cut, *after]}
    fed = () if 0 in wrt else (0,)
    return Case("ConvTranspose", arrays, attributes, wrt, note(wrt=wrt, **attributes), fed=fed, batched=(0,))


@st.composite
def pool(draw: st.DrawFn, op_type: str) -> Case:
    """1-D to 3-D with any strides, dilations, pads and ceil_mode; no window of padding alone."""
    geometry = draw(geometries(draw(st.integers(1, 3)), "pool"))
    ceil = draw(st.booleans())
    counted = op_type == "AveragePool" and draw(st.booleans())
    assume(all(geometry.reads(axis, ceil).any(axis=1).all() for axis in range(len(geometry.sizes))))
    attributes = geometry.attributes | {"ceil_mode": int(ceil)}
    if op_type == "AveragePool":
        attributes["count_include_pad"] = int(counted)
    if op_type == "LpPool":
        attributes["p"] = draw(st.integers(1, 3))
    shape = (draw(st.integers(1, 2)), draw(st.integers(1, 2)), *geometry.sizes)
    x: Any = away_from_zero(shape, draw(st.integers(0, 99))) if op_type == "LpPool" else shape
    return Case(op_type, [x], attributes, note=note(**attributes))


STRATEGIES: dict[str, st.SearchStrategy[Case]] = {
    "Conv": conv(),
    "ConvTranspose": conv_transpose(),
    "MaxPool": pool("MaxPool"),
    "AveragePool": pool("AveragePool"),
    "LpPool": pool("LpPool"),
}
