"""ExplainBatch: a dict of arrays in and out, as Ray Data, Spark, Dask and Hugging Face data sets call it."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxplain.errors import ParameterError, PictureError
from onnxplain.explainer import Explainer
from onnxplain.images import Image, image_of_array
from onnxplain.jobs.items import as_array
from onnxplain.pictures import picture_in, read_picture
from onnxplain.preprocessing import is_upright

FAILED = "error"


class ExplainBatch:
    """Explains the pictures of a batch by some methods of a bundle: a callable that opens the bundle where it runs.

    A batch is a mapping of columns: `image` holds pictures (uint8 [H, W, 3], encoded bytes, paths, or rows as the
    network takes them). It comes back with columns added: `prediction`, `probability`, `target`, for each method
    `attribution` (several methods: `METHOD_attribution`), float32 [N, …], and `error`, which is "" where all went
    well; the maps of a picture that can't be read are NaN, its classes -1. Columns that were there stay, but for the
    pictures themselves where `keep_images` is False.

        ray.data.read_images("s3://bucket/pictures", include_paths=True).map_batches(
            ExplainBatch, fn_constructor_args=("model.explain",), batch_size=32, concurrency=2, num_cpus=1)

    `methods` are names, or a mapping of names to parameters; `options` are those of Explainer (device, threads, rows).
    """

    def __init__(
        self,
        bundle: str,
        methods: str | Sequence[str] | Mapping[str, Mapping[str, Any]] = "gradient",
        targets: str | int | None = None,
        *,
        image: str = "image",
        memory: float | str | None = None,
        keep_images: bool = False,
        **options: Any,
    ) -> None:
        self._made_with = (bundle, methods, targets, image, memory, keep_images, options)
        self.explainer = Explainer(bundle, **options)
        by_name: Mapping[str, Mapping[str, Any]]
        if isinstance(methods, Mapping):
            by_name = methods
        else:
            by_name = {name: {} for name in ([methods] if isinstance(methods, str) else methods)}
        self._prepared = self.explainer.prepared(by_name, memory=memory)
        self._names, self._targets, self._image = list(by_name), targets, image
        self._keep = keep_images

    def __reduce__(self) -> tuple[Any, ...]:
        return _made, self._made_with

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """The batch with its explanations."""
        if self._image not in batch:
            raise ParameterError(f"the batch has no column {self._image!r}; it has {', '.join(map(str, batch))}")
        pictures = batch[self._image]
        images: list[Image | None] = []
        errors: list[str] = []
        for number, picture in enumerate(pictures):
            try:
                images.append(self._read(f"picture {number}", picture))
                errors.append("")
            except PictureError as error:
                images.append(None)
                errors.append(str(error))
        return {**self._kept(batch), **self._explained(images), FAILED: np.array(errors, dtype=object)}

    def frame(self, frame: Any) -> Any:
        """The same for a pandas DataFrame, where a map becomes a flat list of numbers: for Dask's map_partitions."""
        found = self(frame)
        columns = {
            name: [list(np.ravel(value)) for value in values] if np.ndim(values) > 1 else values
            for name, values in found.items()
        }
        return type(frame)(columns, index=frame.index)

    def frames(self, frames: Iterable[Any]) -> Iterator[Any]:
        """The same for one DataFrame after another: Spark's mapInPandas."""
        return map(self.frame, frames)

    def _read(self, name: str, picture: Any) -> Image:
        bundle = self.explainer.bundle
        if isinstance(picture, Mapping):  # of a data set that doesn't decode
            picture = picture.get("bytes") or picture.get("path")
        if isinstance(picture, bytes):
            picture = picture_in(picture, name, is_upright(bundle.steps))
        elif isinstance(picture, str):
            picture = read_picture(picture, is_upright(bundle.steps))
        return image_of_array(name, as_array(picture), bundle)

    def _kept(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        return {name: values for name, values in batch.items() if self._keep or name != self._image}

    def _explained(self, images: Sequence[Image | None]) -> dict[str, Any]:
        good = [number for number, image in enumerate(images) if image is not None]
        there = [image for image in images if image is not None]
        count = len(images)
        found: dict[str, Any] = {
            "prediction": np.full(count, -1, np.int64),
            "target": np.full(count, -1, np.int64),
            "probability": np.full(count, np.nan, np.float32),
        }
        results = self._prepared(there or [self._blank()], self._targets)  # a blank tells the maps' shape
        for name, result in zip(self._names, results, strict=True):
            column = "attribution" if len(self._names) == 1 else f"{name}_attribution"
            found[column] = _spread(result.attribution[: len(there)], good, count)
        if there:
            probabilities = results[0].probabilities
            found["prediction"][good] = probabilities.argmax(axis=1)
            found["probability"][good] = probabilities.max(axis=1)
            found["target"][good] = results[0].targets
        return found

    def _blank(self) -> Image:
        entry = self.explainer.bundle.image
        sizes = [size if isinstance(size, int) else 1 for size in entry.shape[1:]]
        return Image("blank", np.zeros((1, *sizes), entry.dtype))


def _made(
    bundle: str, methods: Any, targets: Any, image: str, memory: Any, keep_images: bool, options: Mapping[str, Any]
) -> ExplainBatch:
    return ExplainBatch(bundle, methods, targets, image=image, memory=memory, keep_images=keep_images, **options)


def _spread(maps: NDArray[Any], places: Sequence[int], count: int) -> NDArray[np.float32]:
    """Maps at their places among `count`, NaN elsewhere."""
    if len(places) == count:
        return maps
    every = np.full((count, *maps.shape[1:]), np.nan, np.float32)
    every[places] = maps
    return every
