"""The virtual environment of the benchmark, which has torch, Captum, onnx-ad and DIANNA; standard library only."""

from collections.abc import Sequence
from pathlib import Path

from coverage_environments import made_environment

CONSTRAINTS = Path(__file__).with_name("bench_constraints.txt")
OURS = ("numpy", "opencv-python", "tqdm", "onnx", "onnx-ir", "onnxscript", "scikit-image", "scikit-learn")
PEERS = ("torch", "torchvision", "timm", "captum", "onnx-ad", "dianna")
RUNTIME = {"cpu": "onnxruntime", "cuda": "onnxruntime-gpu[cuda,cudnn]"}


def environment_python(device: str, work: Path) -> Path:
    """The interpreter of the environment for this device, which is made where it is missing."""
    # DIANNA asks for `onnxruntime`, which would overwrite the one for CUDA; it takes part on the CPU only.
    peers: Sequence[str] = PEERS if device == "cpu" else PEERS[:-1]
    return made_environment(work / "environments" / f"bench-{device}", (*OURS, *peers, RUNTIME[device]), CONSTRAINTS)
