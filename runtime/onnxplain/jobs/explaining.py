"""Explains the batches of one shard and writes it: the middle of a job, the same on one machine and on many."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxplain.answers import OverflowsError
from onnxplain.errors import PictureError
from onnxplain.images import Image
from onnxplain.jobs import parquet, shards, storage
from onnxplain.jobs.decoding import Decoded
from onnxplain.jobs.description import Output
from onnxplain.jobs.pipeline import Batch
from onnxplain.jobs.shards import Entry, MapFile
from onnxplain.jobs.statistics import Planes, planes, statistics
from onnxplain.jobs.thumbnails import GREY, SIDE, map_thumbnail, plain_thumbnail, sheet, thumbnail
from onnxplain.pictures import png_bytes
from onnxplain.result import Result
from onnxplain.targets import name_of

TRUE, TOP = "true", "top"
EXPONENT = 15
"""Maps in float16 are scaled by a power of two so that the largest entry lies below 2**EXPONENT."""

SYNC_EVERY = 8
"""Batches after which their maps are put on the disk."""

Explain = Callable[[Sequence[Image], Any], Sequence[Result]]
"""What explains images by all methods of the job: images and their targets → a result for each method."""


Notice = Callable[[int, Sequence[str]], None]
"""What hears of a batch: how many pictures were explained, and the errors of the others."""


@dataclass(frozen=True, slots=True)
class Task:
    """What all shards of a job have in common: where they go, and how a picture is explained and written.

    Runs take pictures `together` at a time; a batch is filled up to a multiple of that, so that a picture's map
    doesn't depend on how many of its neighbours could be read. `notice` hears of every batch.
    `token` is part of the names of unfinished folders, where several processes work on one job.
    """

    folder: Path
    methods: Sequence[str]
    targets: str | int
    output: Output
    labels: Sequence[str] | None
    together: int
    explain: Explain
    notice: Notice
    token: str = ""


class Shard:
    """One shard that is being made, in a folder that isn't there yet for others."""

    def __init__(self, task: Task, number: int, first: int) -> None:
        self._task, self._number, self._first = task, number, first
        self._folder = task.folder / shards.FOLDER / f"{storage.TEMPORARY}{number:08d}{task.token}"
        storage.make_folder(self._folder.parent)
        storage.remove(self._folder)
        storage.make_folder(self._folder)
        self._entries: dict[int, Entry] = {}
        self._files: dict[str, MapFile] = {}
        self._about: dict[str, dict[str, Any]] = {}
        self._small: dict[str, dict[int, NDArray[np.uint8]]] = {}
        self._taken = 0
        self._lock = threading.Lock()

    def take(self, batch: Batch) -> None:
        """Explains a batch and writes its maps at their places."""
        images = [self._image(batch, place) for place in range(len(batch.items))]
        failed = {place: error for place, error in enumerate(batch.found) if isinstance(error, PictureError)}
        entries: dict[int, Entry] = {}
        good = [place for place, image in enumerate(images) if image is not None]
        for places, results in self._explained(batch, images, good, failed):
            entries |= self._noted(batch, places, results)
        for place, error in failed.items():
            entries[place] = _failure(batch, place, error)
        with self._lock:
            self._entries |= {batch.place + place: entry for place, entry in entries.items()}
            self._taken += 1
            due = self._taken % SYNC_EVERY == 0
        if due:
            self._sync()
        self._task.notice(len(batch.items) - len(failed), [str(error) for error in failed.values()])

    def finish(self) -> None:
        """Writes the rest and gives the folder its name."""
        entries = [self._entries[place] for place in sorted(self._entries)]
        with ThreadPoolExecutor(1) as beside:  # the disk and the processor take about as long
            small = beside.submit(self._small_files, entries)
            written = self._finish_maps(entries)
            files = small.result()
        if any(entry.overlays for entry in entries):
            storage.make_folder(self._folder / shards.OVERLAYS)
        for name, data in files.items():
            storage.write_new(self._folder / name, data)
        manifest = shards.manifest(self._number, self._first, entries, self._about, files, written)
        storage.write_new(self._folder / shards.MANIFEST, storage.json_bytes(manifest))
        if any(entry.overlays for entry in entries):
            storage.sync_folder(self._folder / shards.OVERLAYS)
        storage.sync_folder(self._folder)
        finished = shards.shard_folder(self._task.folder, self._number)
        if self._task.token and finished.is_dir():  # by a process that was thought to be dead; the bytes are the same
            storage.remove(self._folder)
        else:
            storage.rename(self._folder, finished)

    def _small_files(self, entries: Sequence[Entry]) -> dict[str, bytes]:
        """What is in the folder beside the maps and the manifest, by name."""
        files = {
            shards.INDEX: shards.jsonl([entry.line for entry in entries if not entry.failed]),
            shards.FAILURES: shards.jsonl([entry.line for entry in entries if entry.failed]),
        }
        blank = np.full((SIDE, SIDE, 3), GREY, np.uint8)
        for name, small in self._small.items():
            files[name] = sheet(np.stack([small.get(place, blank) for place in range(len(entries))]))
        for entry in entries:
            files |= entry.overlays or {}
        return files

    def _finish_maps(self, entries: Sequence[Entry]) -> dict[str, dict[str, Any]]:
        """Puts the maps on the disk as they are to stay; what is known of files that are checked as a whole."""
        if self._task.output.format == "parquet":
            for file in self._files.values():
                file.close()
            explained = [entry.line for entry in entries if not entry.failed]
            written = {parquet.FILE: parquet.write_maps(self._folder, explained, self._about)} if explained else {}
            self._about = {name: {**about, "file": parquet.FILE} for name, about in self._about.items()}
            return written
        for method, file in self._files.items():
            about = self._about[method]
            nothing = np.full((1, *about["shape"]), np.nan, about["dtype"])
            for place, entry in enumerate(entries):
                if entry.failed:
                    file.put(place, nothing)
            file.finish(len(entries))
        return {}

    def abandon(self) -> None:
        """Closes what is open after an error; the next run removes the folder."""
        for file in self._files.values():
            file.drop()

    def _sync(self) -> None:
        """Puts on the disk what was written so far: at the end all lanes wait for it."""
        if self._task.output.format == "parquet":
            return  # these files won't stay
        for file in list(self._files.values()):
            file.sync()

    def _image(self, batch: Batch, place: int) -> Image | None:
        found = batch.found[place]
        if not isinstance(found, Decoded):
            return None
        return Image(batch.items[place].name, batch.rows[place : place + 1], found.sha256, found.seen, box=found.box)

    def _explained(
        self, batch: Batch, images: Sequence[Image | None], good: Sequence[int], failed: dict[int, PictureError]
    ) -> list[tuple[Sequence[int], Sequence[Result]]]:
        """The results for the pictures of these places; where one's numbers overflow, of each by itself.

        What fails for a picture is put into `failed`.
        """
        if self._task.targets == TRUE:
            for place in good:
                if batch.items[place].label is None:
                    failed[place] = PictureError(f"{batch.items[place].name}: its true class isn't known")
            good = [place for place in good if place not in failed]
        if not good:
            return []
        try:
            return [(good, self._run(batch, images, good))]
        except OverflowsError as error:
            if len(good) == 1:
                failed[good[0]] = PictureError(str(error))
                return []
        return [part for place in good for part in self._explained(batch, images, [place], failed)]

    def _run(self, batch: Batch, images: Sequence[Image | None], good: Sequence[int]) -> Sequence[Result]:
        """The methods' results, the first of which are those of the pictures at these places."""
        filled = [*good, *[good[0]] * (-len(good) % self._task.together)]
        taken = [image for place in filled if (image := images[place]) is not None]
        targets: Any = None
        if self._task.targets == TRUE:
            targets = [batch.items[place].label for place in filled]
        elif self._task.targets != TOP:
            targets = self._task.targets
        return self._task.explain(taken, targets)

    def _noted(self, batch: Batch, places: Sequence[int], results: Sequence[Result]) -> dict[int, Entry]:
        """Writes the maps of some pictures; their entries."""
        said = [self._said(batch, place, results[0], row) for row, place in enumerate(places)]
        overlays: list[dict[str, bytes]] = [{} for _ in places]
        pictures: dict[int, NDArray[np.uint8]] = {}
        for method, result in zip(self._task.methods, results, strict=True):
            for row, place in enumerate(places):
                both = planes(result.attribution[row], result.layout)
                said[row] |= self._kept(method, result, row, batch.place + place, both)
                if self._task.output.thumbnails and both is not None:
                    self._shrunk(method, result.images[row].seen, both[1], row, batch.place + place, pictures)
                if self._task.output.overlays and result.images[row].seen is not None and result.has_pictures:
                    name = f"{shards.OVERLAYS}/{batch.first + place:08d}.{method}.png"
                    overlays[row][name] = png_bytes(result[row].overlay()[0])
        return {place: Entry(said[row], overlays=overlays[row]) for row, place in enumerate(places)}

    def _said(self, batch: Batch, place: int, result: Result, row: int) -> dict[str, Any]:
        """What the index says of a picture, beside its maps."""
        item, image, labels = batch.items[place], result.images[row], self._task.labels
        target, best = int(result.targets[row]), int(result.probabilities[row].argmax())
        return {
            "number": batch.first + place,
            "row": batch.place + place,
            "name": item.name,
            "sha256": image.sha256,
            "box": None if image.box is None else list(image.box),
            "target": target,
            "target_label": name_of(target, labels),
            "predicted": best,
            "predicted_label": name_of(best, labels),
            "probability": float(result.probabilities[row, best]),
            "target_probability": float(result.probabilities[row, target]),
            "target_score": float(result.scores[row, target]),
            "label": item.label,
            "true_label": None if item.label is None else name_of(int(item.label), labels),
            "right": None if item.label is None else best == item.label,
        }

    def _kept(self, method: str, result: Result, row: int, place: int, both: Planes | None) -> dict[str, Any]:
        """Writes one map; what the index says of it."""
        whole = result.attribution[row]
        kind = self._task.output.maps if both is not None else "full"
        kept = whole if kind == "full" or both is None else both[kind == "magnitude"]
        noted: dict[str, Any] = {"steps": int(result.steps[row])} if len(result.steps) else {}
        if self._task.output.dtype == "float16":
            kept, scale = halved(kept)
            noted["scale"] = scale
        self._file(method, kept).put(place, kept[None])
        noted["sha256"] = shards.digest(np.ascontiguousarray(kept))
        if both is not None:
            noted |= statistics(*both)
        return {f"{method}.{name}": value for name, value in noted.items()}

    def _file(self, method: str, kept: NDArray[Any]) -> MapFile:
        with self._lock:
            if method not in self._files:
                name = f"{method}.npy"
                self._files[method] = MapFile(self._folder / name, kept.shape, str(kept.dtype))
                self._about[method] = {"file": name, "shape": list(kept.shape), "dtype": str(kept.dtype)}
            return self._files[method]

    def _shrunk(
        self,
        method: str,
        seen: NDArray[np.uint8] | None,
        sizes: NDArray[Any],
        row: int,
        place: int,
        pictures: dict[int, NDArray[np.uint8]],
    ) -> None:
        """Keeps the thumbnails of a picture and of a map, |a| summed over the channels."""
        if seen is None:
            drawn = plain_thumbnail(sizes)
        else:
            if row not in pictures:
                pictures[row] = thumbnail(seen)
                self._small.setdefault(shards.THUMBNAILS, {})[place] = pictures[row]
            drawn = map_thumbnail(sizes, pictures[row], (seen.shape[0], seen.shape[1]))
        self._small.setdefault(f"thumbnails.{method}.jpg", {})[place] = drawn


def halved(values: NDArray[np.floating[Any]]) -> tuple[NDArray[np.float16], float]:
    """A map in float16, and the power of two by which it is to be multiplied to be itself again."""
    largest = float(np.abs(values).max(initial=0))
    if not largest > 0:
        return values.astype(np.float16), 1.0
    exponent = EXPONENT - int(np.frexp(largest)[1])
    return np.ldexp(values, exponent).astype(np.float16), float(np.ldexp(1.0, -exponent))


def _failure(batch: Batch, place: int, error: PictureError) -> Entry:
    where = "explaining" if isinstance(batch.found[place], Decoded) else "decoding"
    line = {"number": batch.first + place, "name": batch.items[place].name, "error": str(error), "where": where}
    return Entry(line, failed=True)
