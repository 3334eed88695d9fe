"""The C++ engine for tests: its test program, built, and asked to explain what Python explains."""

import itertools
import json
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cpp_runtime import MissingError, cpp_runtime

ROOT = Path(__file__).parents[2]
HEADERS = ROOT / "runtime" / "cpp" / "include"
SOURCES = ROOT / "tests" / "cpp"
WARNINGS = ["-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Wconversion", "-Werror"]
JSON_HEADERS = ("/usr/include", "/usr/local/include")


@dataclass(frozen=True)
class Toolchain:
    """What building takes: the compiler and ONNX Runtime's folder."""

    compiler: str
    runtime: Path


def toolchain() -> Toolchain:
    """The compiler and the libraries; MissingError names the first that isn't there."""
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        raise MissingError("a C++ compiler: apt-get install g++")
    if not any(Path(folder, "nlohmann", "json.hpp").is_file() for folder in JSON_HEADERS):
        raise MissingError("nlohmann/json.hpp: apt-get install nlohmann-json3-dev")
    return Toolchain(compiler, cpp_runtime())


def build(tools: Toolchain, source: str, program: Path, options: Sequence[str]) -> Path:
    """The program of a file of tests/cpp."""
    libraries = tools.runtime / "lib"
    command = [tools.compiler, "-std=c++17", *options, *WARNINGS, f"-I{HEADERS}", "-isystem"]
    command += [str(tools.runtime / "include"), str(SOURCES / f"{source}.cpp"), f"-L{libraries}", "-lonnxruntime"]
    command += [f"-Wl,-rpath,{libraries}", "-o", str(program)]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    if finished.returncode:
        raise AssertionError(f"{' '.join(command)}\n{finished.stderr[:4000]}")
    return program


@dataclass
class Answer:
    """What the program said of a job: arrays by name, other entries as they are, or an error."""

    entries: Mapping[str, Any]
    kinds: Mapping[str, str]

    @property
    def error(self) -> tuple[str, str] | None:
        """The error's kind and words."""
        found = self.entries.get("error")
        return (found["kind"], found["text"]) if found else None

    def array(self, name: str) -> np.ndarray:
        """An array of the answer."""
        entry = self.entries[name]
        return np.fromfile(entry["file"], self.kinds.get(name, "float32")).reshape(entry["shape"])


class Engine:
    """The test program, run on lists of jobs; arrays in jobs go to files in its folder."""

    def __init__(self, program: Path, folder: Path, environment: Mapping[str, str] | None = None) -> None:
        self.program, self._folder, self._environment = program, folder, environment
        self._numbers = itertools.count()
        folder.mkdir(parents=True, exist_ok=True)

    def answers(self, jobs: Sequence[Mapping[str, Any]]) -> list[Answer]:
        """An answer for each job."""
        number = next(self._numbers)
        plain = [{**_plain(job, self._store), "out": str(self._folder / f"{number}-{i}")} for i, job in enumerate(jobs)]
        file = self._folder / f"{number}.json"
        file.write_text(json.dumps(plain))
        finished = subprocess.run(
            [str(self.program), str(file)],
            capture_output=True,
            text=True,
            check=False,
            env=None if self._environment is None else dict(self._environment),
        )
        if finished.returncode:
            raise AssertionError(f"{self.program.name} ended with {finished.returncode}: {finished.stderr[-4000:]}")
        kinds = {"overlay": "uint8", "seen": "uint8"}
        return [Answer(json.loads(line), kinds) for line in finished.stdout.splitlines()]

    def answer(self, **job: Any) -> Answer:
        """The answer to one job."""
        return self.answers([job])[0]

    def _store(self, array: np.ndarray) -> dict[str, Any]:
        file = self._folder / f"array{next(self._numbers)}.bin"
        np.ascontiguousarray(array).tofile(file)
        return {"file": str(file), "shape": list(array.shape), "dtype": str(array.dtype)}


def _plain(value: Any, store: Any) -> Any:
    """The same with arrays stored, as JSON has it."""
    if isinstance(value, np.ndarray):
        return store(value.view(np.uint8) if value.dtype == np.bool_ else value)
    if isinstance(value, Mapping):
        return {key: _plain(each, store) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each, store) for each in value]
    return str(value) if isinstance(value, Path) else value


def difference(found: np.ndarray, expected: np.ndarray) -> float:
    """The relative difference of two arrays in L2; infinite where their shapes differ."""
    if found.shape != expected.shape:
        return float("inf")
    size = np.linalg.norm(expected.astype(np.float64))
    return float(np.linalg.norm(found.astype(np.float64) - expected) / (size or 1.0))


def nudged(images: np.ndarray) -> np.ndarray:
    """The images, each number moved by one unit in the last place, up or down at random."""
    up = np.random.default_rng(0).random(images.shape) < 0.5
    return np.where(up, np.nextafter(images, np.float32(np.inf)), np.nextafter(images, np.float32(-np.inf)))
