"""A copy of a bundle with some of its weights re-drawn: the same network, having learned something else."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from onnxplain.bundle_files import DESCRIPTION, read_bundle, sha256_of
from onnxplain.errors import BundleError, OutputError, ParameterError, unknown
from onnxplain.output import write_bytes

# Whole numbers are no weights: shapes, indices and axes of other operators are among them.
SIZES = {"float16": 2, "bfloat16": 2, "float32": 4, "float64": 8}
HOW = "permuted"


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor of the weights file."""

    name: str
    offset: int
    count: int
    size: int

    @property
    def layer(self) -> str:
        """The name before its last dot or slash: conv1.weight and conv1.bias are one layer."""
        cut = max(self.name.rfind("."), self.name.rfind("/"))
        return self.name[:cut] if cut > 0 else self.name


def layers_of(bundle_path: str | os.PathLike[str]) -> list[str]:
    """The names of a bundle's layers with weights, in the network's order."""
    return list(dict.fromkeys(tensor.layer for tensor in _tensors(_described(Path(bundle_path)), Path(bundle_path))))


def reweighted(
    bundle_path: str | os.PathLike[str],
    target_folder: str | os.PathLike[str],
    layers: Iterable[str] | None = None,
    seed: int = 0,
) -> Path:
    """Writes a copy of a bundle with the weights of some layers (all by default) re-drawn; returns its folder.

    Each tensor's own values are permuted. So they keep their distribution to the last bit: activations keep their
    size, variances stay positive and nothing overflows, which a normal of the same mean and deviation doesn't promise;
    what a layer has learned, which value sits where, is gone. A tensor whose values are all equal stays as it is. The
    draw depends on the seed and the tensor's place alone. Raises ParameterError for a layer that isn't there,
    BundleError for a bundle that doesn't list its weights.
    """
    source, target = Path(bundle_path), Path(target_folder)
    bundle, description = read_bundle(source, verify=False), _described(source)
    tensors = _tensors(description, source)
    known = list(dict.fromkeys(tensor.layer for tensor in tensors))
    chosen = set(known) if layers is None else set(layers)
    for layer in chosen:
        if layer not in known:
            raise ParameterError(unknown("layer", layer, known))
    if target.exists():
        raise OutputError(f"{target} exists; choose another folder for the re-weighted bundle")
    weights = bundle.weights[0] if bundle.weights else ""
    try:
        target.mkdir(parents=True)
        for name in {graph.file for graph in bundle.graphs.values()} | {weights}:
            shutil.copyfile(source / name, target / name)
        _permute(target / weights, [tensor for tensor in tensors if tensor.layer in chosen], seed)
    except OSError as error:
        shutil.rmtree(target, ignore_errors=True)
        raise OutputError(f"can't write {target}: {error.strerror or error}") from None
    changed = _redescribed(description, sha256_of(target / weights), [one for one in known if one in chosen], seed)
    write_bytes(target / DESCRIPTION, json.dumps(changed, indent=1, ensure_ascii=False).encode())
    return target


def _described(folder: Path) -> dict[str, Any]:
    read_bundle(folder, verify=False)  # its errors say what is wrong with a folder
    content: dict[str, Any] = json.loads((folder / DESCRIPTION).read_bytes())
    return content


def _tensors(description: dict[str, Any], folder: Path) -> list[Tensor]:
    """The tensors that can be re-drawn, in graph order, each place in the file once."""
    weights = description.get("weights") or {}
    if "tensors" not in weights:
        reason = "lists no weights" if weights else "has no weights of its own file"
        raise BundleError(f"{folder} {reason}, so none can be re-drawn; export it again with this version")
    found: dict[int, Tensor] = {}
    for entry in weights["tensors"]:
        if entry["dtype"] in SIZES and prod(entry["shape"]) > 1:
            tensor = Tensor(entry["name"], int(entry["offset"]), prod(entry["shape"]), SIZES[entry["dtype"]])
            found.setdefault(tensor.offset, tensor)
    if not found:
        raise BundleError(f"{folder} lists no weights of floating point, so none can be re-drawn")
    return list(found.values())


def _permute(file: Path, tensors: Iterable[Tensor], seed: int) -> None:
    """Permutes the values of each tensor, in place."""
    length = file.stat().st_size
    with file.open("r+b") as stream:
        for tensor in tensors:
            if tensor.offset + tensor.count * tensor.size > length:
                raise BundleError(f"{file} ends before {tensor.name}; export the bundle again")
            stream.seek(tensor.offset)
            values = np.frombuffer(stream.read(tensor.count * tensor.size), np.dtype(f"V{tensor.size}"))
            key = hashlib.sha256(f"{tensor.offset} {tensor.name}".encode()).digest()[:8]
            random = np.random.default_rng([seed, int.from_bytes(key, "little")])
            stream.seek(tensor.offset)
            stream.write(values[random.permutation(tensor.count)].tobytes())


def _redescribed(description: dict[str, Any], sha256: str, layers: list[str], seed: int) -> dict[str, Any]:
    """explainer.json of the copy: the weights' new hash and what was done; what export verified is no longer so."""
    note = f"weights of {', '.join(layers)} {HOW} (seed {seed})"
    source = {**description["source"], "changes": [*description["source"].get("changes", []), note]}
    weights = {**description["weights"], "sha256": sha256}
    refresh = {"reason": f"its weights were {HOW}"}
    return {**description, "source": source, "weights": weights, "verification": {}, "refresh": refresh}
