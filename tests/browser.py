"""A headless Chromium for tests, driven through the DevTools protocol over a pipe: no driver, no port, no package."""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "microsoft-edge")
WEBGL = ("--use-angle=swiftshader", "--enable-unsafe-swiftshader")  # drawn by the CPU
FLAGS = (
    "--headless=new",
    "--no-sandbox",  # tests run as root in containers
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--window-size=1200,1000",
    "--remote-debugging-pipe",
)
# The browser reads from file descriptor 3 and writes to 4; copies above 9 first, as a pipe's end may be one of them.
LAUNCH = (
    "import fcntl, os, sys\n"
    "ends = [fcntl.fcntl(int(end), fcntl.F_DUPFD, 10) for end in sys.argv[1:3]]\n"
    "for end, wanted in zip(ends, (3, 4)): os.dup2(end, wanted)\n"
    "os.execv(sys.argv[3], sys.argv[3:])\n"
)
PATIENCE = 60.0  # seconds for one answer


def find_browser() -> str | None:
    """Path of a Chromium: $EOZIP_BROWSER, the search path, or Playwright's folder; None if there is none."""
    given = os.environ.get("EOZIP_BROWSER")
    found = [given] if given else [path for name in NAMES if (path := shutil.which(name))]
    cached = Path.home() / ".cache" / "ms-playwright"
    found += [str(path) for path in sorted(cached.glob("chromium-*/chrome-linux*/chrome"))]
    return found[0] if found else None


class Page:
    """One tab.

    Attributes:
        requested: every address that the tab asked for.
        errors: exceptions in its scripts, and what the browser logged as errors.
    """

    def __init__(self, to_browser: int, from_browser: int) -> None:
        self._to, self._from = to_browser, from_browser
        self._buffer, self._count = b"", 0
        self.requested: list[str] = []
        self.errors: list[str] = []
        self._session: str | None = None
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        attached = self._call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self._call(f"{domain}.enable")

    def open(self, path: Path | str) -> None:
        """Opens a file from disk, or an address, and waits until it is loaded."""
        address = path if isinstance(path, str) else path.resolve().as_uri()
        self._call("Page.navigate", url=address)
        self.wait(f"document.readyState === 'complete' && location.protocol === '{address.split('//')[0]}'")

    def size(self, width: int, height: int) -> None:
        """Makes the window so large, as on a phone where it is narrow."""
        narrow = width < 600
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": narrow}
        self._call("Emulation.setDeviceMetricsOverride", **metrics)

    def click(self, x: float, y: float) -> None:
        """The mouse, moved to a point of the window and clicked there."""
        self._call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
        for kind in ("mousePressed", "mouseReleased"):
            self._call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def move(self, x: float, y: float) -> None:
        """The mouse, moved to a point of the window."""
        self._call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def run(self, script: str) -> Any:
        """Value of a JavaScript expression; promises are awaited."""
        found = self._call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in found:
            raise AssertionError(f"{script}: {found['exceptionDetails']}")
        return found["result"].get("value")

    def wait(self, script: str) -> None:
        """Until an expression is true."""
        until = time.monotonic() + PATIENCE
        while not self.run(script):
            assert time.monotonic() < until, f"not true within {PATIENCE:g} s: {script}; errors {self.errors}"
            time.sleep(0.05)

    def press(self, key: str) -> None:
        """A key, as a person presses it, into whatever has the focus."""
        for kind in ("rawKeyDown", "keyUp"):
            code = {"ArrowRight": 39, "ArrowLeft": 37, "Home": 36, "End": 35, "Tab": 9}[key]
            self._call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code)

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        """The mouse, held down, from one point of the window to another."""
        for kind, (x, y) in (("mousePressed", start), ("mouseMoved", end), ("mouseReleased", end)):
            held = {"button": "left", "buttons": 0 if kind == "mouseReleased" else 1, "clickCount": 1}
            self._call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **held)

    def screenshot(self) -> str:
        """The window as PNG, base64."""
        return self._call("Page.captureScreenshot", format="png")["data"]

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._count += 1
        message: dict[str, Any] = {"id": self._count, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._count:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]
            self._note(answer)

    def _next(self) -> dict[str, Any]:
        until = time.monotonic() + PATIENCE
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._from], [], [], max(0.0, until - time.monotonic()))
            assert ready, f"the browser did not answer within {PATIENCE:g} s"
            piece = os.read(self._from, 1 << 20)
            assert piece, "the browser has gone"
            self._buffer += piece
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)

    def _note(self, event: dict[str, Any]) -> None:
        method, facts = event.get("method"), event.get("params", {})
        if method == "Network.requestWillBeSent":
            self.requested.append(facts["request"]["url"])
        elif method == "Runtime.consoleAPICalled" and facts["type"] in ("error", "warning", "assert"):
            self.errors.append(f"console: {[a.get('value', a.get('description')) for a in facts['args']]}")
        elif method == "Runtime.exceptionThrown":
            self.errors.append(str(facts["exceptionDetails"]))
        elif method == "Log.entryAdded" and facts["entry"]["level"] == "error":
            self.errors.append(facts["entry"]["text"])


@contextmanager
def chromium(path: str, profile: Path, flags: Sequence[str] = ()) -> Iterator[Page]:
    """A fresh browser with one tab; it ends with the block.

    Args:
        path: of the browser.
        profile: a folder for it, made anew.
        flags: of its command line, beside `FLAGS`.
    """
    (ours_in, theirs_out), (theirs_in, ours_out) = os.pipe(), os.pipe()
    command = [path, *FLAGS, *flags, f"--user-data-dir={profile}", "about:blank"]
    command = [sys.executable, "-c", LAUNCH, str(theirs_in), str(theirs_out), *command]
    with (profile.parent / "browser.log").open("wb") as log:
        process = subprocess.Popen(command, pass_fds=(theirs_in, theirs_out), stdout=log, stderr=log)
    os.close(theirs_in), os.close(theirs_out)
    try:
        yield Page(ours_out, ours_in)
    finally:
        os.close(ours_in), os.close(ours_out)
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
