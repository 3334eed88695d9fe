"""A process that explains and says how much memory it held: `bench_child.py WHAT …`. Imports what it needs alone.

ours BUNDLE FOLDER THREADS       the gradient of FOLDER/image.npy, to FOLDER/ours.npy
captum MODULE FOLDER THREADS     the same by Captum, to FOLDER/captum.npy
method BUNDLE FOLDER THREADS METHOD PARAMETERS MEMORY     one of our methods; prints the peak of a second call
tunnel MODULE FOLDER THREADS SAMPLES                      Captum's NoiseTunnel
loaded BUNDLE FOLDER THREADS GRAPH …                      opens the graphs and runs nothing
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
        explainer, given = _explainer(subject, threads), json.loads(parameters)
        explainer.explain(rows, method, memory=memory, **given)
        forget_peak()
        explainer.explain(rows, method, memory=memory, **given)
    else:
        _load(subject, rest, threads)
        print(resident("VmRSS"))
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


def _load(bundle: str, graphs: list[str], threads: int) -> None:
    """The graphs as an explainer opens them."""
    from onnxplain.runtime import onnxruntime
    from onnxplain.sessions import session_options

    kept = []
    for name in graphs:
        options = session_options(threads)
        kept.append(
            onnxruntime.InferenceSession(
                str(Path(bundle) / f"{name}.onnx"), options, providers=["CPUExecutionProvider"]
            )
        )


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
