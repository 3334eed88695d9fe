"""ONNX Runtime for C++ as one folder, `include` and `lib`, from what this system and its package archive have.

    python tools/cpp_runtime.py [--folder build/ort]

The shared library is that of the Python package onnxruntime. Its headers are looked for where systems have them
(ORT_ROOT, /usr/include, /usr/local/include); on a Debian that lacks them, they are taken out of the package
libonnxruntime-dev of Debian 13, which isn't installed: headers of an older API work with a newer library. The folder
has the layout of ONNX Runtime's own releases, so it can be given to CMake as -DORT_ROOT.
"""

import argparse
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "build" / "ort"
HEADER = "onnxruntime_cxx_api.h"
PACKAGE = "libonnxruntime-dev"
SUITE = "trixie"
SOURCES = (Path("/etc/apt/sources.list.d/debian.sources"), Path("/etc/apt/sources.list"))
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


class MissingError(Exception):
    """What is needed and isn't there, in words that say what to do."""


def cpp_runtime(folder: Path = FOLDER) -> Path:
    """The folder with `include` and `lib`, made where it isn't whole yet; MissingError says what can't be had."""
    library = wheel_library()
    (folder / "lib").mkdir(parents=True, exist_ok=True)
    # The wheel's file is named with its whole version; its own name (SONAME) and the linker's lack it.
    _link(folder / "lib" / "libonnxruntime.so.1", library)
    _link(folder / "lib" / "libonnxruntime.so", Path("libonnxruntime.so.1"))
    if not (folder / "include" / HEADER).exists():
        found = system_headers()
        if found is None:
            download_headers(folder)
        else:
            shutil.copytree(found, folder / "include", dirs_exist_ok=True)
    return folder


def wheel_library() -> Path:
    """The shared library of the installed Python package onnxruntime."""
    found = importlib.util.find_spec("onnxruntime")
    places = list(found.submodule_search_locations or []) if found is not None else []
    libraries = [file for place in places for file in Path(place, "capi").glob("libonnxruntime.so.1.*")]
    if not libraries:
        raise MissingError("the shared library of ONNX Runtime: pip install onnxruntime (Linux)")
    return libraries[0]


def system_headers() -> Path | None:
    """The folder of ONNX Runtime's headers that this system has, if any."""
    roots = [Path(os.environ[name]) for name in ("ORT_ROOT",) if os.environ.get(name)]
    bases = [root / "include" for root in roots] + [Path("/usr/include"), Path("/usr/local/include")]
    places = [base / part for base in bases for part in ("", "onnxruntime", "onnxruntime/core/session")]
    return next((place for place in places if (place / HEADER).is_file()), None)


def download_headers(folder: Path) -> None:
    """The headers of Debian's package, from the archive that this system uses, without changing its sources."""
    for program in ("apt-get", "dpkg-deb"):
        if shutil.which(program) is None:
            raise MissingError(f"ONNX Runtime's headers ({HEADER}): install them, or set ORT_ROOT (no {program} here)")
    apt = folder / "apt"
    for part in ("parts", "lists/partial", "cache/archives/partial"):
        (apt / part).mkdir(parents=True, exist_ok=True)
    source = f"Types: deb\nURIs: {archive()}\nSuites: {SUITE}\nComponents: main\nSigned-By: {KEYRING}\n"
    (apt / "parts" / "headers.sources").write_text(source)
    options = {
        "Dir::Etc::SourceList": "/dev/null",
        "Dir::Etc::SourceParts": apt / "parts",
        "Dir::State::Lists": apt / "lists",
        "Dir::Cache": apt / "cache",
    }
    command = ["apt-get", *(word for name, value in options.items() for word in ("-o", f"{name}={value}"))]
    _run([*command, "update"], apt)
    _run([*command, "download", PACKAGE], apt)
    package = next(apt.glob(f"{PACKAGE}_*.deb"))
    _run(["dpkg-deb", "-x", str(package), "unpacked"], apt)
    shutil.copytree(apt / "unpacked" / "usr" / "include" / "onnxruntime", folder / "include", dirs_exist_ok=True)
    shutil.rmtree(apt)


def archive() -> str:
    """The address of the Debian archive that this system's own sources name."""
    for file in SOURCES:
        text = file.read_text() if file.is_file() else ""
        found = re.search(r"^URIs:\s*(\S+)", text, re.MULTILINE) or re.search(r"^deb\s+(\S+/debian/?)\s", text, re.M)
        if found and KEYRING.is_file():
            return found[1]
    raise MissingError(f"ONNX Runtime's headers ({HEADER}): install them, or set ORT_ROOT (this is no Debian)")


def _run(command: list[str], folder: Path) -> None:
    finished = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    if finished.returncode:
        last = (finished.stderr.strip().splitlines() or ["no message"])[-1]
        raise MissingError(f"ONNX Runtime's headers: {command[0]} {command[-1]} failed: {last}")


def _link(link: Path, target: Path) -> None:
    if link.is_symlink() and link.readlink() == target:
        return
    link.unlink(missing_ok=True)
    link.symlink_to(target)


def main() -> int:
    """Makes the folder and prints its path, or what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where to make it (default: build/ort)")
    try:
        print(cpp_runtime(parser.parse_args().folder.resolve()))
    except MissingError as missing:
        print(f"missing: {missing}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
