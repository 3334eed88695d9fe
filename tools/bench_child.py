"""A process that explains and says how much memory it held: `bench_child.py WHAT …`. Imports what it needs alone.

ours BUNDLE FOLDER THREADS [METHOD PARAMETERS]          the gradient of FOLDER/image.npy, or another map, to ours.npy
captum MODULE FOLDER THREADS                            the gradient by Captum, to captum.npy
tunnel MODULE FOLDER THREADS SAMPLES                    Captum's NoiseTunnel
capped BUNDLE FOLDER THREADS METHOD PARAMETERS MEMORY   prints by how much a second call grows the process at most
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def main(what: str, subject: str, folder: Path, threads: int, rest: list[str]) -> None:
    """Does it and prints bytes."""
    rows = np.load(folder / "image.npy")
    if what == "ours":
        method, parameters = rest or ("gradient", "{}")
        result = _explainer(subject, threads).explain(rows, method, **json.loads(parameters))
        np.save(folder / "ours.npy", result.attribution)
    elif what in ("captum", "tunnel"):
        np.save(folder / f"{what}.npy", _captum(subject, rows, threads, *map(int, rest)))
    elif what == "capped":
        method, parameters, memory = rest
        print(_growth(_explainer(subject, threads), rows, method, json.loads(parameters), memory))
        return
    print(resident("VmHWM"))


def _explainer(bundle: str, threads: int) -> Any:
    from onnxplain import Explainer

    return Explainer(bundle, device="cpu", threads=threads)


def _captum(module: str, rows: Any, threads: int, samples: int = 0) -> Any:
    import torch
    from captum.attr import NoiseTunnel, Saliency

    torch.set_num_threads(threads)
    network = torch.load(module, weights_only=False)
    image = torch.from_numpy(rows)
    with torch.no_grad():
        top = network(image).argmax(1)
    image.requires_grad_()
    saliency = Saliency(network)
    if samples:
        return NoiseTunnel(saliency).attribute(image, nt_samples=samples, stdevs=0.1, target=top, abs=False).numpy()
    return saliency.attribute(image, target=top, abs=False).numpy()


def _growth(explainer: Any, rows: Any, method: str, parameters: dict[str, Any], memory: str) -> int:
    """Bytes that a call adds at most to the process with the network loaded, its images and result left out."""
    from onnxplain.sessions import give_back_memory

    explainer.explain(rows, method, memory=memory, **parameters)
    give_back_memory()
    before = resident("VmRSS")
    forget_peak()
    result = explainer.explain(rows, method, memory=memory, **parameters)
    return resident("VmHWM") - before - int(rows.nbytes) - int(result.attribution.nbytes)


def resident(what: str) -> int:
    """Bytes of memory that this process holds (VmRSS) or held at most (VmHWM)."""
    for line in STATUS.read_text().splitlines():
        if line.startswith(what):
            return int(line.split()[1]) * 1024
    raise OSError(f"{STATUS} has no {what}")


def forget_peak() -> None:
    """The most memory held is counted anew from here."""
    CLEAR.write_text("5")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]), sys.argv[5:])
