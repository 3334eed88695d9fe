"""`refresh()`: new weights for an existing bundle, without tracing the network or deriving its gradient again."""

import shutil
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from onnxplain.bundle_files import REFRESHED, description_of, read_bundle
from onnxplain.errors import BundleError
from onnxplain_export.bundle import new_folder, refuse_target, sha256_of, write_description
from onnxplain_export.new_weights import NewWeights
from onnxplain_export.new_weights import new_weights as read_weights
from onnxplain_export.normalize import Normalized
from onnxplain_export.patching import Patch, is_already, write_patched
from onnxplain_export.recipe import RECIPE, Place, read_recipe, recipe_of
from onnxplain_export.verify.refreshed import verify_refreshed


def refresh(
    bundle: str | PathLike[str],
    new_weights: Any,
    output: str | PathLike[str] | None = None,
    *,
    example: Any = None,
    overwrite: bool = False,
) -> Path:
    """Gives a bundle the weights that its network has learned since, and returns its path.

    `new_weights` are a torch module, a Keras model, an ONNX file or proto of the same network, or a mapping from the
    source's names (a module's state_dict) to arrays. What the bundle holds is computed from them as export did, and
    compared: names, shapes, how the network is built, its scores on random images, and the gradient with differences
    of those; of a mapping, which can't be run, the gradient alone. Without `output` the new bundle takes the place of
    the old one, whole and at once: who reads it meanwhile has the one or the other. `example` is one input batch, for
    a model that has to be exported for its weights to be found (a scripted module, Keras on another backend).

    Raises ModelError, naming the first difference, where the network isn't the one that was exported, or its weights
    aren't finite; VerificationError where the scores differ; BundleError for a bundle that can't be refreshed. The old
    bundle is then as it was.
    """
    folder = Path(bundle)
    target = folder if output is None else Path(output)
    told = _described(folder)
    refuse_target(target, overwrite or target.absolute() == folder.absolute())
    recipe = read_recipe(folder)
    given = read_weights(new_weights, recipe, example)
    patch = Patch(recipe.stored, recipe.results(given.tensors))
    files = {name: entry["file"] for name, entry in told["graphs"].items()}
    weights = told["weights"]["file"] if told["weights"] else None
    with new_folder(target) as new:
        write_patched(folder, new, files, weights, patch)
        shutil.copyfile(folder / RECIPE, new / RECIPE)
        record = verify_refreshed(new, told, recipe, given)
        write_description(new, _redescribed(told, new, given, record))
    return target


def write_recipe(
    folder: Path, told: Mapping[str, Any], normalized: Normalized, places: Sequence[Place]
) -> dict[str, Any]:
    """Writes refresh.onnx; returns what explainer.json says of it: the file, or the reason why there is none."""
    if normalized.half is not None:
        return {"reason": "its arithmetic in half precision was fitted to the weights that it was exported with"}
    recipe = recipe_of(normalized, places)
    tensors = {name: normalized.tensors[name].content for name in recipe.needed}
    files = {name: entry["file"] for name, entry in told["graphs"].items()}
    weights = told["weights"]["file"] if told["weights"] else None
    if not is_already(folder, files, weights, Patch(recipe.stored, recipe.results(tensors))):
        return {"reason": "the way from the source's weights to the stored ones isn't fully known"}
    recipe.write(folder)
    return {"file": RECIPE, "sha256": sha256_of(folder / RECIPE)}


def _described(folder: Path) -> dict[str, Any]:
    """What explainer.json says of a bundle that can be refreshed."""
    if folder.is_file():
        raise BundleError(f"{folder} is a single file, with its weights inside; export it again")
    read_bundle(folder)
    told = description_of(folder)
    entry = told.get("refresh") or {"reason": "it was exported by an older version"}
    if "file" not in entry:
        raise BundleError(f"{folder} can't be refreshed: {entry['reason']}; export it again")
    if not (folder / RECIPE).is_file() or sha256_of(folder / RECIPE) != entry["sha256"]:
        raise BundleError(f"{folder / RECIPE} is missing or was altered after export; export the bundle again")
    return told


def _redescribed(told: Mapping[str, Any], folder: Path, given: NewWeights, record: Mapping[str, Any]) -> dict[str, Any]:
    """The description with the new source, hashes and proofs."""
    changes = [change for change in told["source"]["changes"] if not change.startswith(REFRESHED)]
    note = f"{REFRESHED}; graphs proved at export with those of SHA-256 {_first_source(told)[:16]}"
    source = {**told["source"], "file": given.file, "sha256": given.sha256, "changes": [*changes, note]}
    source["precision"] = given.precision or source["precision"]
    graphs = {name: {**entry, "sha256": sha256_of(folder / entry["file"])} for name, entry in told["graphs"].items()}
    weights = told["weights"] and {**told["weights"], "sha256": sha256_of(folder / told["weights"]["file"])}
    return {**told, "source": source, "graphs": graphs, "weights": weights, "verification": dict(record)}


def _first_source(told: Mapping[str, Any]) -> str:
    """The hash of the source that the bundle was exported from."""
    notes = [change for change in told["source"]["changes"] if change.startswith(REFRESHED)]
    return notes[0].rsplit(" ", 1)[1] if notes else str(told["source"]["sha256"])
