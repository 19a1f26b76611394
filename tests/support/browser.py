"""A page in headless Chromium, driven over a pipe by its own protocol (Chrome DevTools Protocol).

with Browser() as browser:
    page = browser.open(path, width=375)
    assert page.evaluate("document.title") == "…"

python -m tests.support.browser PAGE.html OUT.png [WIDTH [light|dark|print]]
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any

#: Debian has the browser without its window as a package of its own, a fifth smaller.
PROGRAMS = ("chromium-headless-shell", "chromium", "google-chrome")
#: Seconds for one answer of the browser.
_PATIENCE = 120.0 * float(os.environ.get("PUNCH_TEST_TIME_FACTOR", "1"))


def program() -> str | None:
    """The browser's path; None where there is none."""
    return next((found for name in PROGRAMS if (found := shutil.which(name))), None)


class Page:
    """A page that has loaded.

    Attributes:
        trouble: what it said on its console, what it threw, and what it asked the network for.
    """

    def __init__(self, browser: Browser, session: str) -> None:
        self._browser, self._session = browser, session
        self.trouble: list[str] = []

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        return self._browser.call(method, self._session, self, **parameters)

    def look(self, width: int, *, scheme: str = "light", media: str = "screen") -> None:
        """Shows it so many CSS pixels wide, on paper or screen, in light or dark."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=800,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        scheme_ = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", media=media, features=scheme_)

    def evaluate(self, expression: str) -> Any:
        """The value of an expression of JavaScript."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def screenshot(self, height: int | None = None, top: int = 0) -> bytes:
        """A PNG of the whole page, or of so many CSS pixels from `top` on."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": top, "width": size["width"], "scale": 1}
        clip["height"] = min(height or size["height"], size["height"] - top)
        taken = self.call(
            "Page.captureScreenshot", format="png", clip=clip, captureBeyondViewport=True
        )
        return base64.b64decode(taken["data"])


class Browser:
    """A browser of its own, with a profile that goes with it."""

    def __init__(self) -> None:
        self._exit = contextlib.ExitStack()
        self._last = 0
        self._rest = b""

    def __enter__(self) -> Browser:
        path = program()
        assert path, f"none of {PROGRAMS} is installed"
        profile = self._exit.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
        theirs_in, self._out = os.pipe()
        self._in, theirs_out = os.pipe()

        def hand_over() -> None:
            """The protocol is spoken on descriptors 3 and 4, wherever ours happen to be."""
            source, target = os.dup(theirs_in), os.dup(theirs_out)
            high = [os.dup2(fd, 200 + n) for n, fd in enumerate((source, target))]
            os.dup2(high[0], 3)
            os.dup2(high[1], 4)

        command = [path, "--headless", "--remote-debugging-pipe", f"--user-data-dir={profile}"]
        command += ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
        self._process = subprocess.Popen(
            [*command, "--hide-scrollbars", "--font-render-hinting=none", "about:blank"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=hand_over,
            close_fds=False,
            start_new_session=True,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError, AssertionError):
            self.call("Browser.close")
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._in)
        os.close(self._out)
        self._exit.close()

    def open(self, file: Path, width: int = 1200) -> Page:
        """Opens a file and waits until it has loaded."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        page = Page(self, attached["sessionId"])
        for domain in ("Page", "Runtime", "Log", "Network"):
            page.call(f"{domain}.enable")
        page.look(width)
        page.call("Page.navigate", url=file.absolute().as_uri())
        deadline = time.monotonic() + _PATIENCE
        while page.evaluate("document.readyState + location.protocol") != "completefile:":
            assert time.monotonic() < deadline, "the page does not load"
            time.sleep(0.02)
        return page

    def call(
        self, method: str, session: str = "", page: Page | None = None, **parameters: Any
    ) -> dict[str, Any]:
        """One call of the protocol; what comes meanwhile is noted down."""
        self._last += 1
        message = {"id": self._last, "method": method, "params": parameters}
        if session:
            message["sessionId"] = session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._last:
                assert "error" not in answer, answer
                result: dict[str, Any] = answer["result"]
                return result
            if page:
                _note(page, answer)

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            assert select.select([self._in], [], [], _PATIENCE)[0], "the browser is silent"
            read = os.read(self._in, 1 << 20)
            assert read, "the browser is gone"
            self._rest += read
        line, _, self._rest = self._rest.partition(b"\0")
        answer: dict[str, Any] = json.loads(line)
        return answer


def _note(page: Page, event: dict[str, Any]) -> None:
    about = event.get("params", {})
    match event.get("method"):
        case "Runtime.consoleAPICalled" | "Runtime.exceptionThrown" | "Log.entryAdded":
            page.trouble.append(json.dumps(about)[:500])
        case "Network.requestWillBeSent":
            url = about["request"]["url"]
            if not url.startswith(("file:", "data:")):
                page.trouble.append(f"asked for {url}")
