"""The checkpoints of a training, one after another: the first is exported, each later one refreshes its bundle."""

import glob
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from onnxplain.bundle import Bundle
from onnxplain.bundle_files import DESCRIPTION, METADATA, read_bundle
from onnxplain.errors import BundleError, DivergedError, ModelError, ParameterError
from onnxplain.messages import say
from onnxplain.model_file import metadata_of
from onnxplain_export.check.checking import check
from onnxplain_export.exporting import export
from onnxplain_export.refreshing import refresh

COUNTED = re.compile(r"(?:epoch|step|iteration|iter|checkpoint|ckpt)[^0-9a-z]{0,3}(\d+)", re.IGNORECASE)
NUMBER = re.compile(r"\d+")
DETECTING = "rise_plus"
"""The method that a bundle gets by training a detector, not by export."""
Exporting = Callable[[Path, Path], None]
"""Exports a model to a folder."""
OnDiverged = Callable[["Checkpoint", DivergedError], None]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A network at one step of its training: an ONNX model, a bundle's folder, or a single file."""

    path: Path
    step: int
    is_model: bool


def checkpoints(paths: Sequence[str | Path]) -> list[Checkpoint]:
    """The checkpoints that paths and patterns name, in the order of their steps.

    A step is the number in the file's name, or in that of a folder above it: the one after "epoch" or the like, else
    the last. Where these don't tell all checkpoints apart, they are counted from 1 in the order given. Raises
    ModelError for what isn't there, or is neither a model nor a bundle, and ParameterError for one named twice.
    """
    found = [place for path in paths for place in _places(path)]
    if not found:
        raise ModelError("no checkpoints were named; give ONNX files or bundles")
    seen: dict[Path, Path] = {}
    for place in found:
        if seen.setdefault(place.resolve(), place) is not place:
            raise ParameterError(f"the checkpoint {place} is named twice")
    steps = _steps(found)
    ordered = sorted(zip(steps, found, strict=True), key=lambda each: each[0])
    return [Checkpoint(place, step, _is_model(place)) for step, place in ordered]


def _places(path: str | Path) -> list[Path]:
    if not Path(path).exists() and glob.has_magic(str(path)):
        return [Path(name) for name in sorted(glob.glob(str(path), recursive=True))] or _missing(path)
    return [Path(path)] if Path(path).exists() else _missing(path)


def _missing(path: str | Path) -> list[Path]:
    raise ModelError(f"{path}: no such checkpoint; give ONNX files or bundles")


def _is_model(place: Path) -> bool:
    """Whether a checkpoint has to be exported; a bundle, or a method's single file, is opened as it is."""
    if place.is_dir():
        if not (place / DESCRIPTION).is_file():
            raise BundleError(f"{place} has no {DESCRIPTION}, so it is no bundle; give ONNX files or bundles")
        return False
    try:
        return METADATA not in metadata_of(place)
    except (ValueError, UnicodeDecodeError):
        return True  # whatever it is, exporting says what is wrong with it


def _steps(places: Sequence[Path]) -> list[int]:
    # The names themselves, then the folders above them, which may be any where there is but one.
    for level in range(3 if len(places) > 1 else 1):
        names = [place.resolve().parts[-1 - level] if len(place.resolve().parts) > level else "" for place in places]
        for numbers in ([COUNTED.findall(name) for name in names], [NUMBER.findall(_stem(name)) for name in names]):
            steps = [int(found[-1]) for found in numbers if found]
            if len(set(steps)) == len(places):
                return steps
    return list(range(1, len(places) + 1))


def _stem(name: str) -> str:
    return re.sub(r"\.(onnx|explain)$", "", name, flags=re.IGNORECASE)


def bundles(
    found: Sequence[Checkpoint], folder: Path, exporting: Exporting, on_diverged: OnDiverged | None = None
) -> Iterator[tuple[Checkpoint, Path]]:
    """Each checkpoint with the bundle to open for it, in `folder` where it is a model; valid until the next is asked.

    The first model is exported by `exporting`, each later one refreshes the bundle before it; where that can't be,
    since the network's architecture is another, it is exported with the methods, preprocessing and labels of that
    bundle, and this is said. A bundle among the checkpoints says how the models after it are read. A model
    whose weights are NaN is handed to `on_diverged`, where that is given, and has no bundle. Raises ParameterError
    where a checkpoint's classes aren't those of the first.
    """
    first: tuple[Checkpoint, Bundle] | None = None
    before: Path | None = None
    ours = False
    for number, checkpoint in enumerate(found):
        if checkpoint.is_model:
            target = folder / f"{number}.explain"
            try:
                before = _made(checkpoint, before, target, exporting, in_place=ours)
            except DivergedError as error:
                if on_diverged is None:
                    raise
                on_diverged(checkpoint, error)
                continue
        else:
            before = checkpoint.path
        ours = checkpoint.is_model
        bundle = read_bundle(before, verify=False)
        first = first or (checkpoint, bundle)
        _check_classes(first, (checkpoint, bundle))
        yield checkpoint, before


def _made(checkpoint: Checkpoint, before: Path | None, target: Path, exporting: Exporting, in_place: bool) -> Path:
    """The bundle of a model, in `target` unless the one before is refreshed in place."""
    if before is None:
        exporting(checkpoint.path, target)
        return target
    try:
        return refresh(before, checkpoint.path, None if in_place else target)
    except DivergedError:
        raise
    except (ModelError, BundleError) as error:
        made = _exported_like(read_bundle(before, verify=False), checkpoint.path, target)
        say(f"{checkpoint.path}: the bundle of the checkpoint before can't be refreshed, a new one was made: {error}")
        return made


def _exported_like(bundle: Bundle, model: Path, target: Path) -> Path:
    """A new bundle with the methods, the preprocessing and the classes' names of another."""
    classes = check(model).classes
    if classes is not None and classes != bundle.scores.classes:
        _refuse_classes(model, classes, "the checkpoint before it", bundle.scores.classes)
    steps = [dict(step) for step in bundle.steps] or None
    labels = None if bundle.scores.labels is None else list(bundle.scores.labels)
    methods = [name for name in bundle.methods if name != DETECTING]
    return export(model, target, methods=methods, preprocessing=steps, labels=labels)


def _check_classes(first: tuple[Checkpoint, Bundle], other: tuple[Checkpoint, Bundle]) -> None:
    """ParameterError where two checkpoints tell different classes apart."""
    (one, before), (two, now) = first, other
    if before.scores.classes != now.scores.classes:
        _refuse_classes(two.path, now.scores.classes, one.path, before.scores.classes)
    for number, (old, new) in enumerate(zip(before.scores.labels or (), now.scores.labels or (), strict=False)):
        if old != new:
            raise ParameterError(
                f"class {number} is {new!r} in {two.path} and {old!r} in {one.path}; checkpoints of one training have "
                "the same"
            )


def _refuse_classes(this: Path, now: int | None, other: Path | str, before: int | None) -> NoReturn:
    raise ParameterError(
        f"{this} has {now or 'no'} classes and {other} has {before or 'none'}; checkpoints of one training have the "
        "same"
    )
