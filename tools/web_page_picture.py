"""Draws runtime/web/page/page.png: the page comparing both shipped networks, as a headless Chromium shows it.

    python tools/web_page.py && PYTHONPATH=tests/support python tools/web_page_picture.py

Needs Pillow, which comes with scikit-image, for the palette that keeps the file small.
"""

import functools
import http.server
import io
import sys
import tempfile
import threading
from pathlib import Path

from PIL import Image

import headless
from web_page import DIST, WEB

WIDTH = 1280
COLOURS = 256
DONE = "document.getElementById('compare-cancel').hidden && document.querySelectorAll('.board canvas').length === 8"


def main() -> int:
    """Writes the picture."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(DIST))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server, tempfile.TemporaryDirectory() as profile:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with headless.Browser(Path(profile)) as browser:
            picture = photographed(browser, f"http://127.0.0.1:{server.server_address[1]}/")
        server.shutdown()
    whole = Image.open(io.BytesIO(picture)).convert("RGB")
    whole.quantize(COLOURS, kmeans=3, dither=Image.Dither.NONE).save(WEB / "page" / "page.png", optimize=True)
    return 0


def photographed(browser: headless.Browser, address: str) -> bytes:
    """The comparison from the top of the page to the table's end, as a PNG file's bytes."""
    browser.look(WIDTH, 900)
    browser.open(address)
    browser.wait("!!window.onnxplainPage?.result")
    browser.say("Emulation.setScrollbarsHidden", hidden=True)
    browser.run("document.querySelector('[value=compare]').click()")
    browser.wait(DONE)
    browser.run("document.activeElement.blur()")
    height = browser.run("document.getElementById('board').getBoundingClientRect().bottom + scrollY + 24")
    browser.look(WIDTH, int(height))
    browser.wait(f"innerHeight === {int(height)}")
    return browser.picture()


if __name__ == "__main__":
    sys.exit(main())
