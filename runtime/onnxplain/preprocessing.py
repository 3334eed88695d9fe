"""From a picture to the numbers that a network takes: an ordered list of steps, the same in every language.

Steps on the picture come first (`exif`, `colour`, `resize`, `crop`), then those on its values (`scale`, `mean`, `std`),
then `layout`.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxplain.errors import ParameterError, PictureError, unknown
from onnxplain.resize import KERNELS, resize

Step = dict[str, Any]
Size = tuple[int, int]
Box = tuple[float, float, float, float]

ORDER = ("exif", "colour", "resize", "crop", "scale", "mean", "std", "layout")
COLOURS = {"RGB": 3, "BGR": 3, "GREY": 1}
LAYOUTS = ("NCHW", "NHWC")
IMAGENET_MEAN = [0.485, 0.456, 0.406]
IMAGENET_STD = [0.229, 0.224, 0.225]
# A sliver of 1 x 10,000 pixels, its shorter side scaled to 256, would fill gigabytes.
MOST_PIXELS = 100_000_000


@dataclass(frozen=True, slots=True)
class Prepared:
    """One picture, ready for the network.

    `rows` is float32 `[C, H, W]` or `[H, W, C]`; `seen` is the picture as the network sees it, RGB uint8 `[H, W, 3]`;
    `box` is the part of the original that `seen` covers, (top, left, bottom, right) in its pixels, and reaches beyond
    it where a crop padded.
    """

    rows: NDArray[np.float32]
    seen: NDArray[np.uint8]
    box: Box


def prepare(pixels: NDArray[np.uint8], steps: Iterable[Mapping[str, Any]]) -> Prepared:
    """Return a picture, RGB uint8 `[H, W, 3]`, as the network takes it; raises PictureError where it doesn't fit.

    Orientation ("exif") is applied when a picture is read; see `is_upright`.
    """
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
        raise PictureError(f"a picture must be uint8 [H, W, 3] in RGB, not {pixels.dtype} {list(pixels.shape)}")
    steps = list(steps)
    drawn: NDArray[Any] = pixels
    box = (0.0, 0.0, float(pixels.shape[0]), float(pixels.shape[1]))
    order = "RGB"
    by_name = {step["step"]: step for step in steps}
    if "colour" in by_name:
        order = by_name["colour"]["order"]
        drawn = _coloured(drawn, order)
    drawn, box = _placed(drawn, box, by_name.get("resize"), by_name.get("crop"))
    return Prepared(_valued(drawn, steps), _seen(drawn, order), box)


def is_upright(steps: Iterable[Mapping[str, Any]]) -> bool:
    """Return whether the steps ask for the camera's orientation to be applied."""
    return any(step["step"] == "exif" for step in steps)


def _coloured(pixels: NDArray[Any], order: str) -> NDArray[Any]:
    if order == "GREY":
        # ITU-R 601 in Pillow's fixed point (Convert.c, L24), so that grey networks see what they were trained on.
        weights = np.array([19595, 38470, 7471], np.uint32)
        return ((pixels.astype(np.uint32) @ weights + 0x8000) >> 16).astype(np.uint8)[..., None]
    return pixels[..., ::-1] if order == "BGR" else pixels


def resized_shape(height: int, width: int, step: Mapping[str, Any]) -> Size:
    """Return the (height, width) that a resize step gives; "shorter" truncates the longer side as torchvision does."""
    if step["rule"] == "exact":
        return step["size"][0], step["size"][1]
    longer = int(step["size"] * max(height, width) / min(height, width))
    return (step["size"], longer) if height <= width else (longer, step["size"])


def _placed(
    pixels: NDArray[Any], box: Box, resized: Mapping[str, Any] | None, crop: Mapping[str, Any] | None
) -> tuple[NDArray[Any], Box]:
    """A picture resized and cropped at its centre, padded with 0 where it is smaller, and the box that it covers."""
    height, width = pixels.shape[:2] if resized is None else _resized_shape(pixels, resized)
    rows, columns = crop["size"] if crop is not None else (height, width)
    (top, bottom), (left, right) = _centre(height, rows), _centre(width, columns)
    region = (max(top, 0), min(bottom, height), max(left, 0), min(right, width))
    if resized is None:
        inside = pixels[region[0] : region[1], region[2] : region[3]]
    else:
        how: dict[str, Any] = {name: resized[name] for name in ("kernel", "antialias")}
        inside = resize(pixels, height, width, rounded=resized["round"], region=region, **how)
    row, column = (box[2] - box[0]) / height, (box[3] - box[1]) / width
    covered = (box[0] + top * row, box[1] + left * column, box[0] + bottom * row, box[1] + right * column)
    around = ((region[0] - top, bottom - region[1]), (region[2] - left, right - region[3]), (0, 0))
    return np.pad(inside, around) if inside.shape[:2] != (rows, columns) else inside, covered


def _resized_shape(pixels: NDArray[Any], step: Mapping[str, Any]) -> Size:
    height, width = resized_shape(pixels.shape[0], pixels.shape[1], step)
    if height * width > MOST_PIXELS:
        raise PictureError(
            f"a picture of {pixels.shape[1]}x{pixels.shape[0]} pixels is too long and thin: "
            f"with its shorter side resized to {step['size']} it would have {height * width:,} pixels"
        )
    return height, width


def _centre(length: int, target: int) -> tuple[int, int]:
    # torchvision's center_crop: the padding before is rounded down, a crop's start is rounded half to even.
    start = -((target - length) // 2) if target > length else round((length - target) / 2)
    return start, start + target


def _valued(pixels: NDArray[Any], steps: list[Mapping[str, Any]]) -> NDArray[np.float32]:
    """The numbers that the network takes, float32 [C, H, W] or [H, W, C]."""
    height, width, channels = pixels.shape
    planes = bool(steps) and steps[-1].get("order") == "NCHW"
    rows = np.empty((channels, height, width) if planes else pixels.shape, np.float32)
    for channel in range(channels):
        values = pixels[..., channel].astype(np.float64)
        for step in steps:
            if step["step"] == "scale":
                values *= step["factor"]
            elif step["step"] == "mean":
                values -= np.broadcast_to(step["values"], channels)[channel]
            elif step["step"] == "std":
                values /= np.broadcast_to(step["values"], channels)[channel]
        rows[channel if planes else (..., channel)] = values
    return rows


def _seen(pixels: NDArray[Any], order: str) -> NDArray[np.uint8]:
    shown = pixels if pixels.dtype == np.uint8 else np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
    if order == "GREY":
        return np.repeat(shown, 3, axis=2)
    return np.ascontiguousarray(shown[..., ::-1] if order == "BGR" else shown)


# Presets. Each is a function of the network's picture size; the numbers are those of the named library's own pipeline.

PRESETS: dict[str, Callable[[int, int], list[Step]]] = {
    # torchvision.transforms.Resize(256), CenterCrop(224), ToTensor, Normalize.
    "torchvision": lambda height, width: [
        *_shorter_and_crop(height, width, round(max(height, width) * 256 / 224), "bilinear"),
        *_values(1 / 255, IMAGENET_MEAN, IMAGENET_STD),
    ],
    # timm's IMAGENET_INCEPTION_MEAN models: crop_pct 0.9, bicubic.
    "timm-half": lambda height, width: [
        *_shorter_and_crop(height, width, math.floor(max(height, width) / 0.9), "bicubic"),
        *_values(1 / 255, [0.5], [0.5]),
    ],
    # keras.applications.imagenet_utils.preprocess_input, modes "tf", "torch" and "caffe".
    "keras-tf": lambda height, width: [_exact(height, width, plain=True), *_values(1 / 127.5, [1.0], None)],
    "keras-torch": lambda height, width: [
        _exact(height, width, plain=True),
        *_values(1 / 255, IMAGENET_MEAN, IMAGENET_STD),
    ],
    "keras-caffe": lambda height, width: [
        {"step": "colour", "order": "BGR"},
        _exact(height, width, plain=True),
        *_values(None, [103.939, 116.779, 123.68], None),
    ],
    # Caffe's own ImageNet networks and the SqueezeNet, AlexNet and VGG of the ONNX model zoo that came from it.
    "caffe": lambda height, width: [
        {"step": "colour", "order": "BGR"},
        *_shorter_and_crop(height, width, round(max(height, width) * 256 / 224), "bilinear"),
        *_values(None, [104.0, 117.0, 123.0], None),
    ],
    "unit": lambda height, width: [_exact(height, width), *_values(1 / 255, None, None)],
    "raw": lambda height, width: [_exact(height, width)],
}


def preset_steps(name: str, height: int, width: int, channels: int = 3, layout: str = "NCHW") -> list[Step]:
    """Return the steps of a named preset for a network that takes pictures of `height` x `width` x `channels`.

    One channel means a network that takes grey pictures. Raises ParameterError for an unknown name, or a preset that is
    for colour.
    """
    if name not in PRESETS:
        raise ParameterError(unknown("preprocessing preset", name, PRESETS))
    if channels not in (1, 3):
        raise ParameterError(
            f"no preset makes {channels} channels from a picture; feed float arrays in the network's own shape"
        )
    steps = PRESETS[name](height, width)
    if channels == 1:
        if any(len(step.get("values", [])) == 3 or step["step"] == "colour" for step in steps):
            grey = [other for other in PRESETS if other in ("unit", "raw", "timm-half", "keras-tf")]
            raise ParameterError(
                f"preset {name!r} is for colour; this network takes one channel: use {', '.join(grey)}"
            )
        steps.insert(0, {"step": "colour", "order": "GREY"})
    elif steps[0]["step"] != "colour":
        steps.insert(0, {"step": "colour", "order": "RGB"})
    for step in steps:
        if len(step.get("values", [])) == 1:
            step["values"] = step["values"] * channels
    return check_steps([{"step": "exif"}, *steps, {"step": "layout", "order": layout}])


def _shorter_and_crop(height: int, width: int, shorter: int, kernel: str) -> list[Step]:
    resizing = {
        "step": "resize",
        "rule": "shorter",
        "size": shorter,
        "kernel": kernel,
        "antialias": True,
        "round": True,
    }
    return [resizing, {"step": "crop", "size": [height, width]}]


def _exact(height: int, width: int, plain: bool = False) -> Step:
    """Return a resize to the network's size: Pillow's, or `plain` as in tf.image.resize (no antialias, no rounding)."""
    step = {"step": "resize", "rule": "exact", "size": [height, width], "kernel": "bilinear"}
    return {**step, "antialias": not plain, "round": not plain}


def _values(factor: float | None, mean: list[float] | None, std: list[float] | None) -> list[Step]:
    scale: Step = {"step": "scale", "factor": factor}
    steps = [scale, {"step": "mean", "values": mean}, {"step": "std", "values": std}]
    return [step for step in steps if None not in step.values()]


# Checking and changing a list of steps.


def check_steps(steps: Iterable[Mapping[str, Any]]) -> list[Step]:
    """Return the steps as plain dictionaries; raises ParameterError that names an unknown, misplaced or wrong one."""
    checked = [dict(step) for step in steps]
    for position, step in enumerate(checked, start=1):
        kind = step.get("step")
        if kind not in ORDER:
            raise ParameterError(f"preprocessing step {position}: {unknown('step', str(kind), ORDER)}")
        wrong = _wrong_fields(step, FIELDS[kind]) or _wrong_size(step)
        if wrong:
            raise ParameterError(f"preprocessing step {position} ({kind}): {wrong}")
    _check_order([step["step"] for step in checked])
    _check_channels(checked)
    return checked


def _wrong_fields(step: Step, fields: Mapping[str, Callable[[Any], bool] | Sequence[Any]]) -> str:
    for name in step.keys() - {"step"} - fields.keys():
        return unknown("entry", name, fields)
    for name, allowed in fields.items():
        if name not in step:
            return f"{name!r} is missing"
        value = step[name]
        if callable(allowed):
            if not allowed(value):
                return f"{name!r} can't be {value!r}"
        elif value not in allowed:
            return unknown(name, str(value), [str(each) for each in allowed])
    return ""


def _wrong_size(step: Step) -> str:
    if step["step"] == "resize" and (step["rule"] == "shorter") != isinstance(step["size"], int):
        return "'size' must be one number for rule 'shorter' and [height, width] for rule 'exact'"
    return ""


def _check_order(kinds: list[str]) -> None:
    for kind in ORDER:
        if kinds.count(kind) > 1:
            raise ParameterError(f"preprocessing has step {kind!r} twice")
    if "layout" not in kinds:
        raise ParameterError("preprocessing has no 'layout' step: say NCHW or NHWC")
    if kinds != sorted(kinds, key=ORDER.index):
        raise ParameterError(f"preprocessing steps are {', '.join(kinds)}; the order must be {', '.join(ORDER)}")


def _check_channels(steps: list[Step]) -> None:
    channels = next((COLOURS[step["order"]] for step in steps if step["step"] == "colour"), 3)
    for step in steps:
        if len(step.get("values", [])) not in (0, 1, channels):
            raise ParameterError(
                f"preprocessing {step['step']} has {len(step['values'])} values for a picture of {channels} channels"
            )


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 100_000


def _is_size(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) == 2 and all(_is_count(side) for side in value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _are_numbers(values: Any) -> bool:
    return isinstance(values, list | tuple) and len(values) > 0 and all(_is_number(value) for value in values)


FIELDS: dict[str, dict[str, Callable[[Any], bool] | Sequence[Any]]] = {
    "exif": {},
    "colour": {"order": tuple(COLOURS)},
    "resize": {
        "rule": ("shorter", "exact"),
        "size": lambda size: _is_count(size) or _is_size(size),
        "kernel": KERNELS,
        "antialias": (True, False),
        "round": (True, False),
    },
    "crop": {"size": _is_size},
    "scale": {"factor": lambda factor: _is_number(factor) and factor != 0},
    "mean": {"values": _are_numbers},
    "std": {"values": lambda values: _are_numbers(values) and 0 not in values},
    "layout": {"order": LAYOUTS},
}


def override(
    steps: Iterable[Mapping[str, Any]],
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    scale: float | None = None,
    colour: str | None = None,
    resize: int | Size | str | None = None,
    crop: int | Size | str | None = None,
    kernel: str | None = None,
    antialias: bool | None = None,
) -> list[Step]:
    """Return the steps with some replaced or added in their place; None leaves a step as it is, "none" removes it.

    `resize` is one number for the shorter side or (height, width) for an exact size; `crop` is one side or (height,
    width). Both may be text as on a command line: "256", "224x320", "none".
    """
    changed = {step["step"]: step for step in check_steps(steps)}
    _put(changed, "scale", None if scale is None else {"factor": float(scale)})
    _put(changed, "mean", None if mean is None else {"values": [float(value) for value in mean]})
    _put(changed, "std", None if std is None else {"values": [float(value) for value in std]})
    _put(changed, "colour", None if colour is None else {"order": colour.upper()})
    _override_geometry(changed, parse_size(resize), parse_size(crop))
    for name, value in (("kernel", kernel), ("antialias", antialias)):
        if value is not None and "resize" not in changed:
            raise ParameterError(f"{name}={value} needs a resize step, and there is none")
        if value is not None:
            changed["resize"][name] = value
    return check_steps(sorted(changed.values(), key=lambda step: ORDER.index(step["step"])))


def _put(steps: dict[str, Step], kind: str, fields: Step | None) -> None:
    if fields is not None:
        steps[kind] = {"step": kind, **fields}


def _override_geometry(
    steps: dict[str, Step], resizing: int | Size | str | None, cropping: int | Size | str | None
) -> None:
    for kind, size in (("resize", resizing), ("crop", cropping)):
        if size == "none":
            steps.pop(kind, None)
    if isinstance(resizing, int | tuple):
        rule = (
            {"rule": "shorter", "size": resizing}
            if isinstance(resizing, int)
            else {"rule": "exact", "size": [*resizing]}
        )
        before = steps.get("resize", {"step": "resize", "kernel": "bilinear", "antialias": True, "round": True})
        steps["resize"] = {**before, **rule}
    if isinstance(cropping, int | tuple):
        _put(steps, "crop", {"size": [cropping, cropping] if isinstance(cropping, int) else [*cropping]})


def parse_size(size: int | Size | str | None) -> int | Size | str | None:
    """Return "256" as 256 and "224x320" as (224, 320), height first; other forms, None and "none" as they are."""
    if not isinstance(size, str) or size == "none":
        return size
    sides = size.lower().split("x")
    if not all(side.isdecimal() for side in sides) or len(sides) > 2:
        raise ParameterError(f"a size is a number, HEIGHTxWIDTH or none, not {size!r}")
    return int(sides[0]) if len(sides) == 1 else (int(sides[0]), int(sides[1]))
