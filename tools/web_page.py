"""Builds the web page that explains networks in the browser: one folder for any static server.

    python tools/web_page.py [-o runtime/web/dist] [--serve]

Copies the engine and the page from runtime/web, exports the shipped networks for it, and compresses what is large,
since many servers send files as they are. onnxruntime-web comes from runtime/web/node_modules: npm ci --ignore-scripts.
"""

import argparse
import functools
import gzip
import http.server
import json
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from demo_report import MODELS, NETWORKS, exported
from onnxplain import OnnxplainError

WEB = Path(__file__).resolve().parent.parent / "runtime" / "web"
DIST = WEB / "dist"
PACKAGES = WEB / "node_modules"
MODULES = ("ort.wasm.bundle.min.mjs", "ort.webgpu.bundle.min.mjs")
BINARIES = ("ort-wasm-simd-threaded.wasm", "ort-wasm-simd-threaded.asyncify.wasm")
METHODS = (
    "gradient",
    "input_x_gradient",
    "smoothgrad",
    "integrated_gradients",
    "smoothgrad_integrated",
    "guided_backprop",
    "lrp_epsilon_plus",
    "deeplift",
    "gradcam",
    "hirescam",
    "layercam",
    "occlusion",
    "rise",
    "kernel_shap",
    "lime",
)
"""What the shipped networks are exported with: each of a family's well-known ones, so that the menu stays short."""
ON_OPENING = ("index.html", "page", "engine", "onnxplain.js", MODULES[0], BINARIES[0] + ".gz", "pictures")
"""What the page loads when it is opened, beside the first network."""


class MissingError(Exception):
    """What is needed and isn't there, in words that say what to do."""


def main() -> int:
    """Builds the page, prints what it weighs, and serves it where asked."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("-o", "--output", type=Path, default=DIST)
    parser.add_argument("--packages", type=Path, default=PACKAGES, help="where npm has put onnxruntime-web")
    parser.add_argument("--serve", action="store_true", help="then serve it on this machine, under /onnxplain/")
    parser.add_argument("--port", type=int, default=8000)
    arguments = parser.parse_args()
    try:
        build(arguments.output, arguments.packages)
    except (MissingError, OnnxplainError) as error:
        print(f"web_page: {error}", file=sys.stderr)
        return 2
    for name, size in sizes(arguments.output):
        print(f"{size / 1e6:8.2f} MB  {name}")
    if arguments.serve:
        serve(arguments.output, arguments.port)
    return 0


def build(
    output: Path, packages: Path = PACKAGES, bundles: Mapping[str, Path] | None = None, builds: int = len(MODULES)
) -> Path:
    """The folder with the page, made anew; MissingError says what can't be had.

    `bundles` are those of the shipped networks where they are exported already; of onnxruntime-web's `builds`, the
    first is that for the processor and the second that for WebGPU.
    """
    runtime = packages / "onnxruntime-web"
    if not runtime.is_dir():
        raise MissingError(f"{runtime} is missing: run npm ci --ignore-scripts in {WEB}")
    with tempfile.TemporaryDirectory() as scratch:
        made = Path(scratch) / "dist"
        _copy_page(made)
        _copy_runtime(made / "ort", runtime, builds)
        for name in NETWORKS:
            bundle = bundles[name] if bundles is not None else exported(name, Path(scratch), METHODS)
            _compress_bundle(bundle, made / "networks" / name)
        shutil.rmtree(output, ignore_errors=True)
        shutil.copytree(made, output)
    return output


def _copy_page(made: Path) -> None:
    made.mkdir(parents=True)
    shutil.copy(WEB / "page" / "index.html", made)
    shutil.copy(WEB / "onnxplain.js", made)
    shutil.copytree(WEB / "engine", made / "engine")
    shutil.copytree(WEB / "page", made / "page", ignore=shutil.ignore_patterns("*.html", "*.md", "*.png"))
    shutil.copytree(MODELS / "pictures", made / "pictures")


def _copy_runtime(folder: Path, runtime: Path, builds: int) -> None:
    folder.mkdir()
    for module, binary in list(zip(MODULES, BINARIES, strict=True))[:builds]:
        shutil.copy(runtime / "dist" / module, folder)
        _compress(runtime / "dist" / binary, folder)
    version = json.loads((runtime / "package.json").read_text("utf-8"))
    (folder / "package.json").write_text(json.dumps({key: version[key] for key in ("name", "version", "license")}))


def _compress_bundle(bundle: Path, folder: Path) -> None:
    folder.mkdir(parents=True)
    for file in sorted(bundle.iterdir()):
        _compress(file, folder)


def _compress(file: Path, folder: Path) -> None:
    # Without the time, so that the same file always becomes the same bytes.
    (folder / f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes(), 9, mtime=0))


def sizes(output: Path) -> list[tuple[str, int]]:
    """What the page's parts weigh in bytes, and what is transferred until the first map."""
    parts = [(place.relative_to(output).as_posix(), _size(place)) for place in sorted(output.iterdir())]
    opening = sum(_size(place) for name in ON_OPENING for place in (output / name, output / "ort" / name))
    network = output / "networks" / NETWORKS[1]
    first = ("explainer.json.gz", "weights.data.gz", "forward.onnx.gz", "noise.onnx.gz")
    return [*parts, ("until the first map", opening + sum(_size(network / name) for name in first))]


def _size(place: Path) -> int:
    if not place.exists():
        return 0
    return place.stat().st_size if place.is_file() else sum(file.stat().st_size for file in place.rglob("*"))


def serve(output: Path, port: int) -> None:
    """Serves the folder under a sub-path of this machine until it is stopped."""
    with tempfile.TemporaryDirectory() as root:
        (Path(root) / "onnxplain").symlink_to(output.resolve())
        handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=root)
        try:
            listening = http.server.ThreadingHTTPServer(("127.0.0.1", port), handler)
        except OSError as error:
            sys.exit(f"port {port} can't be had ({error.strerror}); use --port N")
        with listening as server:
            print(f"open http://127.0.0.1:{server.server_address[1]}/onnxplain/ (Ctrl-C ends)", flush=True)
            try:
                server.serve_forever()
            except KeyboardInterrupt:
                print()


if __name__ == "__main__":
    sys.exit(main())
