"""How fast our maps are, and others': `python tools/bench.py`.

Everything is measured on the same weights, pictures and threads, in turns, in an environment that it makes for itself.
Results go to tools/bench.json as they come; what the same code measured with the same options is not done again.
`tools/docs.py` makes README.md's table from that file. `--quick` tries one small network and records nothing.
"""

import argparse
import ctypes
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench_environment import environment_python
from bench_networks import NETWORKS
from bench_report import report
from bench_results import FORMAT, ROOT, TOOLS, code_version, cores, is_done, read, record
from bench_table import table

EVERY = tuple(NETWORKS)
SOME = ("resnet18", "resnet50", "mobilenet_v2", "vit_small_patch16_224", "vgg16", "honest", "squeezenet")
# What is measured, and on which networks unless --networks says.
PARTS: Mapping[str, tuple[str, ...]] = {
    "gradient": EVERY,
    "methods": SOME,
    "targets": SOME,
    "start": ("honest", "resnet50"),
    "memory": ("honest", "resnet50", "mobilenet_v2", "vit_small_patch16_224"),
    "rise": ("honest",),
    "tolerance": ("honest", "squeezenet"),
}
ON_CUDA = ("gradient", "methods", "targets")
OPTIONS = ("batch", "rounds", "threads", "device", "precision", "quick")


def main() -> int:
    """Measures what is not measured yet, and prints the figures."""
    arguments = _arguments()
    # A request to end becomes an exception, which ends the measuring process too (`_child`).
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    if arguments.device == "cuda" and not _has_driver():
        print("skipped: NVIDIA's driver isn't here")
        return 0
    python = environment_python(arguments.device, arguments.work)
    if arguments.device == "cuda" and (obstacle := _no_cuda(python)):
        print(f"skipped: {obstacle}")
        return 0
    if arguments.profile:
        return _child(python, arguments, arguments.profile, "profile", Path(os.devnull))
    failed = False
    for network, part in _chosen(arguments):
        made_with = _made_with(arguments)
        if not (arguments.again or arguments.quick) and is_done(read(), _device(arguments), network, part, made_with):
            continue
        failed |= not _measured(python, arguments, network, part, made_with)
    if not arguments.quick:
        print("\n".join(table()))
    return 1 if failed else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", metavar="NAME,…", help=f"of {', '.join(EVERY)}")
    parser.add_argument("--parts", metavar="PART,…", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--batch", type=int, default=4, help="pictures at once, for the gradient (4)")
    parser.add_argument("--rounds", type=int, default=20, help="rounds of every contender, for the gradient (20)")
    parser.add_argument("--threads", type=int, default=cores(), help="threads of every contender (all cores)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--precision", choices=("float32", "float16"), default="float32", help="float16 on CUDA only")
    parser.add_argument("--again", action="store_true", help="also what has a result")
    parser.add_argument("--quick", action="store_true", help="one small network, three rounds, nothing recorded")
    parser.add_argument("--profile", metavar="NETWORK", help="print where its time goes, by operator, and do no more")
    parser.add_argument("--limit", type=int, default=3600, help="seconds for one part of one network")
    default = Path(tempfile.gettempdir()) / "onnxplain-bench"
    parser.add_argument("--work", type=Path, default=default, help=f"folder of the environment and files ({default})")
    arguments = parser.parse_args()
    for option, known in (("networks", EVERY), ("parts", tuple(PARTS))):
        for name in (getattr(arguments, option) or "").split(","):
            if name and name not in known:
                parser.error(f"--{option}: there is no {name!r}; there are {', '.join(known)}")
    if arguments.precision == "float16" and arguments.device != "cuda":
        parser.error("--precision float16 is for --device cuda")
    arguments.work = arguments.work.resolve()
    return arguments


def _chosen(arguments: argparse.Namespace) -> list[tuple[str, str]]:
    """Networks and parts, network by network."""
    if arguments.quick:
        networks: Any = (arguments.networks or "honest").split(",")
        return [(name, part) for name in networks for part in (arguments.parts or "gradient").split(",")]
    usual = ON_CUDA if arguments.device == "cuda" else tuple(PARTS)
    parts = arguments.parts.split(",") if arguments.parts else usual
    named = arguments.networks.split(",") if arguments.networks else None
    return [(name, part) for name in EVERY for part in parts if (name in named if named else name in PARTS[part])]


def _device(arguments: argparse.Namespace) -> str:
    """The heading under which results are kept."""
    return arguments.device if arguments.precision == "float32" else f"{arguments.device} {arguments.precision}"


def _made_with(arguments: argparse.Namespace) -> dict[str, Any]:
    """What makes a result out of date when it changes."""
    options = {name: getattr(arguments, name) for name in ("batch", "rounds", "threads")}
    return {"format": FORMAT, "code": code_version(), **options}


def _measured(python: Path, arguments: argparse.Namespace, network: str, part: str, made_with: Any) -> bool:
    """Measures one part of one network in a process of its own, records and prints it; whether that went well."""
    print(f"{network}, {part}", flush=True)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "result.json"
        status = _child(python, arguments, network, part, file)
        if status or not file.exists():
            print(f"  failed with status {status}", flush=True)
            return False
        result = json.loads(file.read_text("utf-8"))
    if code_version() != made_with["code"]:
        print("  the code changed meanwhile: not recorded", flush=True)
        made_with = {}
    print("\n".join(f"  {line}" for line in report(result)), flush=True)
    print(f"  took {time.perf_counter() - started:.0f} s", flush=True)
    if made_with and not arguments.quick:
        record(_device(arguments), network, part, result | {"made_with": made_with}, list(EVERY))
    return True


def _child(python: Path, arguments: argparse.Namespace, network: str, part: str, file: Path) -> int:
    options = {name: getattr(arguments, name) for name in OPTIONS}
    command = [str(python), str(TOOLS / "bench_measure.py"), network, part, json.dumps(options), str(arguments.work)]
    environment = {**os.environ, "PYTHONWARNINGS": "ignore", "TQDM_DISABLE": "1", "PYTHONPATH": _packages()}
    process = subprocess.Popen([*command, str(file)], env=environment, start_new_session=True)
    try:
        return process.wait(arguments.limit)
    except BaseException as reason:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if not isinstance(reason, subprocess.TimeoutExpired):
            raise
        print(f"  took more than {arguments.limit} seconds", flush=True)
        return 124


def _packages() -> str:
    return os.pathsep.join(str(ROOT / name) for name in ("runtime", "export", "tools"))


def _has_driver() -> bool:
    """Whether NVIDIA's driver is here, so that an environment for CUDA is worth its download."""
    try:
        ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")
    except OSError:
        return False
    return True


def _no_cuda(python: Path) -> str | None:
    """Why nothing can be measured on CUDA here, or None."""
    question = "import torch; from onnxplain.providers import cuda_obstacle; print(cuda_obstacle() or '', end='')\n"
    question += "print('' if torch.cuda.is_available() else 'torch finds no CUDA')"
    answer = subprocess.run(
        [str(python), "-c", question], env={**os.environ, "PYTHONPATH": _packages()}, capture_output=True, text=True
    )
    said = answer.stdout.strip() or (answer.stderr.strip().splitlines()[-1] if answer.returncode else "")
    return said or None


if __name__ == "__main__":
    sys.exit(main())
