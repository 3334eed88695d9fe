"""Runs the portability table's cases in headless Chromium: `portability_browser.py PROVIDER CASES.JSON FOLDER`.

PROVIDER is "wasm" or "webgpu" (on SwiftShader, which computes it in software). The page is onnxruntime-web alone, from
the folder with node_modules that ONNXRUNTIME_PACKAGES names.
"""

import json
import os
import sys
import tempfile
import threading
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "support"))
import headless

PACKAGES = Path(os.environ.get("ONNXRUNTIME_PACKAGES", "."), "node_modules", "onnxruntime-web", "dist")
SCRIPTS = {"wasm": "ort.wasm.min.js", "webgpu": "ort.webgpu.min.js"}
OPTIONS: dict[str, Sequence[str]] = {
    "wasm": ("--disable-gpu",),
    "webgpu": ("--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader", "--enable-features=Vulkan"),
}
TYPES = {".js": "text/javascript", ".mjs": "text/javascript", ".wasm": "application/wasm", ".html": "text/html"}
PATIENCE = 300.0
PAGE = """<!doctype html><meta charset="utf-8"><script src="/packages/SCRIPT"></script><script>
ort.env.wasm.wasmPaths = '/packages/'; ort.env.wasm.numThreads = 1; ort.env.logLevel = 'fatal';
const ARRAYS = { float32: Float32Array, int64: BigInt64Array, uint8: Uint8Array, int32: Int32Array };
async function bytes(url) { return await (await fetch(url)).arrayBuffer(); }
async function run(number) {
  const entry = await (await fetch(`/case/${number}`)).json(), feeds = {}, written = [];
  const options = { executionProviders: ['PROVIDER'] };
  const session = await ort.InferenceSession.create(await bytes(`/model/${number}`), options);
  for (const [place, input] of entry.inputs.entries())
    feeds[input.name] = new ort.Tensor(
      input.dtype, new ARRAYS[input.dtype](await bytes(`/input/${number}/${place}`)), input.shape);
  const results = await session.run(feeds, entry.outputs);
  for (const [place, name] of entry.outputs.entries()) {
    const { data, dims, type } = results[name];
    await fetch(`/output/${number}/${place}`, { method: 'POST', body: data });
    written.push({ name, dtype: type, shape: [...dims], file: `output_${place}.bin` });
  }
  await session.release();
  return written;
}
async function result(number) {
  try { return { outputs: await run(number) }; } catch (error) { return { error: String(error.message ?? error) }; }
}
</script>"""


def handler(provider: str, cases: list[dict[str, Any]], folder: Path) -> type[BaseHTTPRequestHandler]:
    """A server of the page, the package, the cases, and a taker of outputs."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            kind, _, rest = self.path.strip("/").partition("/")
            if kind in ("", "index.html"):
                page = PAGE.replace("SCRIPT", SCRIPTS[provider]).replace("PROVIDER", provider)
                self._send(page.encode(), ".html")
            elif kind == "packages" and (PACKAGES / rest).is_file():
                self._send((PACKAGES / rest).read_bytes(), Path(rest).suffix)
            elif kind == "case":
                self._send(json.dumps(cases[int(rest)]).encode(), ".json")
            elif kind == "model":
                self._send(Path(cases[int(rest)]["embedded"]).read_bytes(), ".onnx")
            elif kind == "input":
                number, place = map(int, rest.split("/"))
                self._send(Path(cases[number]["inputs"][place]["file"]).read_bytes(), ".bin")
            else:
                self.send_error(404)

        def do_POST(self) -> None:
            _, number, place = self.path.strip("/").split("/")
            data = self.rfile.read(int(self.headers["Content-Length"]))
            (folder / cases[int(number)]["id"] / f"output_{int(place)}.bin").write_bytes(data)
            self._send(b"", ".txt")

        def _send(self, data: bytes, suffix: str) -> None:
            self.send_response(200)
            self.send_header("Content-Type", TYPES.get(suffix, "application/octet-stream"))
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            """Nothing is logged."""

    return Handler


def main(provider: str, cases_file: str, folder: str) -> None:
    """Runs every case that has no result yet."""
    headless.PATIENCE = PATIENCE
    cases = json.loads(Path(cases_file).read_text("utf-8"))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(provider, cases, Path(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile,
        headless.Browser(Path(profile), OPTIONS[provider]) as browser,
    ):
        browser.open(f"http://127.0.0.1:{server.server_port}/")
        for number, case in enumerate(cases):
            place = Path(folder, case["id"])
            if (place / "result.json").exists():
                continue
            place.mkdir(parents=True, exist_ok=True)
            (place / "started").touch()
            (place / "result.json").write_text(json.dumps(browser.run(f"result({number})")), "utf-8")
    server.shutdown()


if __name__ == "__main__":
    if len(sys.argv) != 4 or sys.argv[1] not in SCRIPTS:
        sys.exit(f"usage: portability_browser.py {'|'.join(SCRIPTS)} CASES.JSON FOLDER")
    main(*sys.argv[1:])
