"""One network ready to be timed: its module, its ONNX file, its bundles, pictures, and the right maps of them."""

import copy
import hashlib
import inspect
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray

from bench_networks import NETWORKS, Network, images, module_and_file
from bench_results import code_version
from onnxplain import Explainer
from onnxplain.providers import choose
from onnxplain_export import export

Array = NDArray[Any]

SEGMENTED_CLASS = 1
PRECISIONS = {"float32": torch.float32, "float16": torch.float16}


@dataclass
class Subject:
    """A network and what is asked of it: so many pictures, on so many threads of a device, in a precision."""

    name: str
    work: Path
    batch: int
    threads: int
    device: str = "cpu"
    precision: str = "float32"
    quick: bool = False

    def __post_init__(self) -> None:
        torch.set_num_threads(self.threads)
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False

    @property
    def network(self) -> Network:
        """Its entry in the list."""
        return NETWORKS[self.name]

    @cached_property
    def _both(self) -> tuple[Any, Path]:
        return module_and_file(self.name, self.work)

    @cached_property
    def module(self) -> Any:
        """The torch module, on its device and in its precision, weights without gradients."""
        return copy.deepcopy(self._both[0]).to(self.device, PRECISIONS[self.precision])

    @property
    def file(self) -> Path:
        """The ONNX file."""
        return self._both[1]

    @property
    def forward_file(self) -> Path:
        """The same; in half precision, in which nobody gave it to us, a bundle's graph of its scores."""
        return self.file if self.precision == "float32" else self.bundle("gradient") / "forward.onnx"

    @property
    def providers(self) -> list[Any]:
        """Those of the engine, with its options."""
        return choose(self.device, half=self.precision == "float16")

    @cached_property
    def array(self) -> Array:
        """The pictures, float32 [batch, 3, side, side]."""
        return images(self.network, self.batch)

    def obstacle(self) -> str | None:
        """Why it can't be measured in this precision, or None: a peer's half is no match for our full one."""
        if self.precision == "float32" or "precision" in inspect.signature(export).parameters:
            return None
        return f"export makes no {self.precision} graphs"

    def bundle(self, *methods: str) -> Path:
        """The folder of a bundle with these methods, made by the code as it is now."""
        key = hashlib.sha256(repr((code_version(), sorted(methods), self.precision)).encode()).hexdigest()[:12]
        folder = self.work / "bundles" / f"{self.name}-{key}.explain"
        if not folder.exists():
            for old in folder.parent.glob(f"{self.name}-*.explain"):
                if time.time() - old.stat().st_mtime > 86400:
                    shutil.rmtree(old)
            folder.parent.mkdir(parents=True, exist_ok=True)
            started = time.perf_counter()
            options: dict[str, Any] = {"preprocessing": self.network.preprocessing}
            if self.precision != "float32":
                options["precision"] = self.precision
            export(self.file, folder, methods=list(methods), name=self.name, **options)
            folder.with_suffix(".seconds").write_text(str(time.perf_counter() - started))
        return folder

    def export_seconds(self, *methods: str) -> float:
        """How long the export of that bundle took, all its proofs included."""
        return float(self.bundle(*methods).with_suffix(".seconds").read_text())

    def explainer(self, *methods: str) -> Explainer:
        """An explainer of such a bundle, of its own."""
        return Explainer(self.bundle(*methods), device=self.device, threads=self.threads, verify=False)

    def session(self, file: Path) -> Any:
        """An onnxruntime session with nothing set but the threads, and on CUDA the engine's options."""
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = self.threads
        return onnxruntime.InferenceSession(str(file), options, providers=self.providers)

    def tensor(self, array: Array | None = None) -> Any:
        """The pictures as torch takes them."""
        return torch.from_numpy(self.array if array is None else array).to(self.device, PRECISIONS[self.precision])

    @cached_property
    def truth(self) -> Array:
        """The gradient by torch in float64: neither side's rounding at a ReLU's kink is the other's error."""
        double = copy.deepcopy(self._both[0]).to("cpu", torch.float64)
        rows = [torch_gradient(self, double, torch.from_numpy(row[None]).double()) for row in self.array]
        return np.concatenate([row.numpy() for row in rows])

    @cached_property
    def targets(self) -> list[int]:
        """Each picture's top class by the torch module."""
        with torch.no_grad():
            scores = self.module(self.tensor())
        return scores.flatten(2).sum(2).argmax(1).tolist() if self.network.segments else scores.argmax(1).tolist()


def torch_gradient(subject: Subject, module: Any, rows: Any) -> Any:
    """What our `gradient` explains: each picture's top class, or where a segmentation says its class, that class."""
    rows = rows.detach().requires_grad_()
    scores = module(rows)
    if subject.network.segments:
        total = scores[:, SEGMENTED_CLASS][scores.argmax(1) == SEGMENTED_CLASS].sum()
    else:
        total = scores.gather(1, scores.argmax(1, keepdim=True)).sum()
    return torch.autograd.grad(total, rows)[0]


def error(found: Array, truth: Array) -> dict[str, float]:
    """Relative Euclidean distances: the middle picture's, which a kink leaves alone, and the worst one's."""
    apart = np.asarray(found, np.float64) - truth
    axes = tuple(range(1, truth.ndim))
    sizes = np.maximum(np.sqrt(np.square(np.asarray(truth, np.float64)).sum(axes)), np.finfo(np.float32).tiny)
    each: Sequence[float] = np.sqrt(np.square(apart).sum(axes)) / sizes
    return {"typical": float(np.median(each)), "worst": float(np.max(each))}
