"""What explain returns: raw maps, scores, and everything needed to say later how they were made."""

import copy
import hashlib
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import NDArray

from onnxplain.bundle import Bundle
from onnxplain.errors import ParameterError
from onnxplain.heatmap import HEATMAP_PRESETS, at_size, heatmap, overlay, overlay_original, signed_map
from onnxplain.images import SPATIAL, Image
from onnxplain.pictures import read_picture
from onnxplain.presets import split_method
from onnxplain.runtime import onnxruntime
from onnxplain.version import __version__

Array = NDArray[np.float32]
Pixels = NDArray[np.uint8]


@dataclass(frozen=True, eq=False, slots=True, repr=False)
class Result:
    """Maps of N images by one method.

    `attribution` is raw and signed, in the network's own layout ([N, C, H, W]; perturbation methods have one
    channel) or of the shape of the value inside that is explained; `scores` and `probabilities` are [N, classes], or
    [N, …] of other outputs; `targets` [N] are the explained classes and `labels`
    their names. Where several targets per image were asked for, attribution, targets and labels have a second axis
    for them.

    `steps` [N] is how many rows the network was run on for each image, beside a first look at its scores. `errors` [N]
    (and a target axis as above) are the maps' estimated errors, in L2 relative to the map: None unless `tolerance`
    asked for them. `made` says how all of them were made; `provenance` is that with the pictures.
    """

    attribution: Array
    scores: Array
    probabilities: Array
    targets: NDArray[np.int64]
    labels: tuple[Any, ...]
    method: str
    parameters: Mapping[str, Any]
    made: Mapping[str, Any]
    layout: str | None
    images: tuple[Image, ...]
    measures: str = "sensitivity"
    steps: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    errors: NDArray[np.float64] | None = None
    tolerance: float | None = None

    def __len__(self) -> int:
        return len(self.attribution)

    def __repr__(self) -> str:
        shape = "×".join(map(str, self.attribution.shape))
        return f"<Result of {self.method} for {len(self)} images, {shape}: {', '.join(map(str, self.labels[:5]))}>"

    def __getitem__(self, index: int) -> "Result":
        """The result of one image alone."""
        index = range(len(self))[index]
        one = slice(index, index + 1)
        return replace(
            self,
            attribution=self.attribution[one],
            scores=self.scores[one],
            probabilities=self.probabilities[one],
            targets=self.targets[one],
            labels=self.labels[one],
            images=self.images[one],
            steps=self.steps[one],
            errors=None if self.errors is None else self.errors[one],
        )

    @property
    def provenance(self) -> dict[str, Any]:
        """How the result was made, as plain data that JSON can hold; pictures are hashed when first asked for."""
        pictures = [
            {"name": image.name, "sha256": image.sha256, **_effort(number, self.steps, self.errors)}
            for number, image in enumerate(self.images)
        ]
        made = copy.deepcopy(dict(self.made))  # whoever changes it doesn't change the result
        return {"bundle": made["bundle"], "pictures": pictures, **made}

    @property
    def converged(self) -> NDArray[np.bool_]:
        """Whether each map's estimated error is within the tolerance; where there is none, nothing is amiss."""
        if self.errors is None or self.tolerance is None:
            return np.ones(self.targets.shape, np.bool_)
        return self.errors <= self.tolerance

    @property
    def has_tokens(self) -> bool:
        """Whether the maps are of sequences, [N, L, features]."""
        return self.layout not in SPATIAL and self.attribution.ndim - self.targets.ndim == 2

    def tokens(self) -> Array:
        """One number for each token, float32 [N, L], of maps [N, L, features].

        Contributions are added up over the features; sensitivities become the length of the gradient, since their sum
        is 0 wherever a LayerNormalization follows.
        """
        if not self.has_tokens:
            raise ParameterError("what is explained is no sequence of tokens; use .attribution")
        maps = self.attribution.astype(np.float64)
        found = maps.sum(axis=-1) if self.measures == "contribution" else np.linalg.norm(maps, axis=-1)
        return found.astype(np.float32)

    @property
    def has_pictures(self) -> bool:
        """Whether the maps have rows and columns, so that they can be drawn."""
        return self.layout in SPATIAL and self.attribution.ndim - self.targets.ndim == 3

    def heatmap(self, **options: Any) -> Array:
        """Maps to look at, float32 [N, H, W] in 0..1: the sum of |a| over channels, from minimum to 99th percentile.

        Where the result was made under a preset, its system's way of drawing holds. `options` (percentile, statistic,
        reduction) are those of onnxplain.heatmap.heatmap.
        """
        _, preset = split_method(self.method, None)
        return heatmap(self.attribution, self._drawable(), **{**HEATMAP_PRESETS.get(preset or "", {}), **options})

    def signed(self, percentile: float = 99.0) -> Array:
        """Maps with their sign, float32 [N, H, W] in −1..1: what speaks for the target and what against it."""
        return signed_map(self.attribution, self._drawable(), percentile=percentile)

    def _drawable(self) -> str:
        if not self.has_pictures:
            raise ParameterError("this network's input is no picture, so there is nothing to draw; use .attribution")
        return str(self.layout)

    @overload
    def overlay(self, original: Literal[False] = False) -> Pixels: ...

    @overload
    def overlay(self, original: Literal[True]) -> list[Pixels]: ...

    def overlay(self, original: bool = False) -> Pixels | list[Pixels]:
        """The maps on their pictures, RGB uint8 [N, H, W, 3] as the network saw them.

        With `original`, a list of overlays on the pictures as they were handed in, each of its own size. Several
        targets per image give the arrays a further axis before H. Raises ParameterError for images that came as
        floats and can't be drawn.
        """
        drawn = [_draw_each(image, heat, original) for image, heat in zip(self.images, self.heatmap(), strict=True)]
        return drawn if original else np.stack(drawn)

    def _repr_html_(self) -> str | None:
        """For notebooks: a line for each image, the picture as the network saw it and then its overlays."""
        if not self.has_pictures:
            return None
        from onnxplain.display.from_results import MOST_ROWS, notebook_rows  # start-up does without
        from onnxplain.display.notebook import notebook_html

        return notebook_html(notebook_rows(self), repr(self), max(0, len(self) - MOST_ROWS))

    def _repr_png_(self) -> bytes | None:
        """The same as a picture, for what shows no HTML."""
        if not self.has_pictures:
            return None
        from onnxplain.display.from_results import notebook_rows  # as above
        from onnxplain.display.notebook import notebook_png

        return notebook_png(notebook_rows(self))


def _draw_each(image: Image, heat: Array, original: bool) -> Pixels:
    """The overlay of one map [H, W], or of one for each target [T, H, W]."""
    return np.stack([_draw(image, one, original) for one in heat]) if heat.ndim == 3 else _draw(image, heat, original)


def _draw(image: Image, heat: Array, original: bool) -> Pixels:
    if image.seen is None:
        raise ParameterError(
            f"{image.name} came as an array of a network without preprocessing: draw .heatmap() yourself"
        )
    pixels = None
    if original and image.box is not None:
        pixels = image.original if image.path is None else read_picture(image.path, image.upright)
    if pixels is not None and image.box is not None:
        return overlay_original(pixels, heat, image.box)
    height, width = image.seen.shape[:2]
    if heat.shape == (height, width):
        return overlay(image.seen, heat)
    return overlay(image.seen, at_size(heat, height, width))


def how_made(
    bundle: Bundle,
    method: str,
    parameters: Mapping[str, Any],
    *,
    explains: str,
    provider: str,
    cotangent: Any = None,
    tolerance: float | None = None,
) -> dict[str, Any]:
    """How the result of a call is made, whatever its pictures, as plain data that JSON can hold."""
    used = {} if cotangent is None else {"cotangent": _plain(np.asarray(cotangent, np.float32))}
    return {
        "bundle": {"name": bundle.name, "sha256": bundle.sha256, "model_sha256": bundle.source.get("sha256")},
        "method": method,
        "parameters": plain_parameters(parameters),
        "explains": explains,
        **used,
        **({} if tolerance is None else {"tolerance": tolerance}),
        "seed": parameters.get("seed"),
        "provider": provider,
        "precision": bundle.precision,
        "versions": {
            "onnxplain": __version__,
            "onnxruntime": onnxruntime.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
    }


def _effort(number: int, steps: NDArray[np.int64], errors: NDArray[np.float64] | None) -> dict[str, Any]:
    """The steps and the estimated error (one for each target, where there are several) of an image."""
    found: dict[str, Any] = {"steps": int(steps[number])} if len(steps) else {}
    if errors is not None:
        # JSON has no infinity: an error that couldn't be estimated is null.
        plain = [float(error) if np.isfinite(error) else None for error in np.ravel(errors[number])]
        found["error"] = plain if errors.ndim > 1 else plain[0]
    return found


def plain_parameters(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters as JSON holds them, arrays by shape and hash."""
    return {name: _plain(value) for name, value in parameters.items()}


def _plain(value: Any) -> Any:
    """A parameter as JSON holds it; an array by its shape and hash."""
    if isinstance(value, np.ndarray):
        digest = hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()
        return {"shape": list(value.shape), "sha256": digest}
    return value
