"""A headless Chromium that tests open pages in: over a pipe, in the browser's own protocol, with no further package."""

import base64
import contextlib
import fcntl
import json
import os
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PATIENCE = 60.0
"""Seconds that anything may take."""


class PageError(Exception):
    """The browser ended, refused a command, or took too long."""


class Browser:
    """One browser with one page, and all that the page complained about."""

    def __init__(self, profile: Path, options: Sequence[str] = ("--disable-gpu",)) -> None:
        assert CHROMIUM is not None
        self._number, self._rest, self._seen = 0, b"", list[dict[str, Any]]()
        self.complaints: list[str] = []
        # The browser reads commands from its handle 3 and answers on 4; ours lie above those.
        to_read, self._write, self._read, to_write = map(_high, (*os.pipe(), *os.pipe()))
        self._process = subprocess.Popen(
            [
                CHROMIUM,
                "--headless",
                "--no-sandbox",
                *options,
                "--disable-dev-shm-usage",
                "--remote-debugging-pipe",
                f"--user-data-dir={profile}",
                "about:blank",
            ],
            stderr=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=(3, 4),
            preexec_fn=lambda: (os.dup2(to_read, 3), os.dup2(to_write, 4)),
            start_new_session=True,
        )
        os.close(to_read)
        os.close(to_write)
        self._session: str | None = None
        try:
            target = self.say("Target.createTarget", url="about:blank")["targetId"]
            self._session = self.say("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
            for domain in ("Page", "Runtime", "Log"):
                self.say(f"{domain}.enable")
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "Browser":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the browser and all its processes."""
        for handle in (self._write, self._read):
            with contextlib.suppress(OSError):
                os.close(handle)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def say(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Gives a command of the protocol and returns the answer."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        rest = json.dumps(message).encode() + b"\0"
        while rest:
            rest = rest[os.write(self._write, rest) :]
        answer = self._await(lambda told: told.get("id") == self._number)
        if "error" in answer:
            raise PageError(f"{method}: {answer['error']}")
        return answer["result"]

    def open(self, url: str) -> None:
        """Goes to an address and waits until all of the page is loaded; forgets earlier complaints."""
        self.complaints.clear()
        self._seen.clear()
        self.say("Page.navigate", url=url)
        self.wait("document.readyState === 'complete' && location.href.split('#')[0] !== 'about:blank'")

    def reload(self) -> None:
        """Loads the page once more."""
        self.run("self.isOld = true")
        self.say("Page.reload")
        self.wait("!self.isOld && document.readyState === 'complete'")

    def run(self, script: str) -> Any:
        """Runs a script in the page and returns its value."""
        answer = self.say("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise PageError(json.dumps(answer["exceptionDetails"])[:2000])
        return answer["result"].get("value")

    def wait(self, condition: str) -> None:
        """Waits until a script's value is true."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            with contextlib.suppress(PageError):  # between two pages there is none to ask
                if self.run(condition):
                    return
            time.sleep(0.02)
        raise PageError(f"{condition} did not come true")

    def press(self, *keys: str) -> None:
        """Presses keys one after another, as a person would: "Tab", "Enter", "ArrowRight", "Shift+Tab", "a"."""
        codes = {"Tab": 9, "Enter": 13, "Escape": 27, "Space": 32, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39}
        codes |= {"ArrowDown": 40, "Home": 36, "End": 35}
        for pressed in keys:
            shift, _, key = pressed.rpartition("+")
            letter = {"Enter": "\r", "Space": " "}.get(key, "" if key in codes else key)
            about = {"key": " " if key == "Space" else key, "modifiers": 8 if shift else 0}
            about["windowsVirtualKeyCode"] = codes.get(key, ord(key.upper()[0]))
            down = {"type": "keyDown", "text": letter} if letter else {"type": "rawKeyDown"}
            self.say("Input.dispatchKeyEvent", **about, **down)
            self.say("Input.dispatchKeyEvent", **about, type="keyUp")

    def look(self, width: int, height: int, dark: bool = False) -> None:
        """Sets the size of the window, a phone's if it is narrow, and day or night."""
        phone = width < 600
        self.say(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=2 if phone else 1,
            mobile=phone,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.say("Emulation.setEmulatedMedia", features=[scheme])

    def picture(self) -> bytes:
        """What is seen now, as a PNG file's bytes."""
        return base64.b64decode(self.say("Page.captureScreenshot", format="png")["data"])

    def _await(self, is_it: Any) -> dict[str, Any]:
        end = time.monotonic() + PATIENCE
        while True:
            for place, told in enumerate(self._seen):
                if is_it(told):
                    del self._seen[place]
                    return told
            ready, _, _ = select.select([self._read], [], [], max(0.0, end - time.monotonic()))
            data = os.read(self._read, 1 << 20) if ready else b""
            if not data:
                raise PageError("the browser ended" if ready else "the browser doesn't answer")
            *whole, self._rest = (self._rest + data).split(b"\0")
            for message in map(json.loads, whole):
                self._note(message)

    def _note(self, told: dict[str, Any]) -> None:
        given = told.get("params", {})
        if told.get("method") == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(given["exceptionDetails"])[:1000])
        elif told.get("method") == "Runtime.consoleAPICalled" and given["type"] in ("error", "warning", "assert"):
            self.complaints.append(json.dumps(given["args"])[:1000])
        elif told.get("method") == "Log.entryAdded" and given["entry"]["level"] in ("error", "warning"):
            self.complaints.append(f"{given['entry']['text']} {given['entry'].get('url', '')}")
        elif "id" in told:
            self._seen.append(told)


def _high(handle: int) -> int:
    """The same under a number that the browser doesn't use."""
    moved = fcntl.fcntl(handle, fcntl.F_DUPFD_CLOEXEC, 10)
    os.close(handle)
    return moved
