"""Drives a headless Chromium over its DevTools protocol, with the standard library alone.

The protocol passes through two pipes (`--remote-debugging-pipe`): JSON messages that end in a zero byte. See
https://chromedevtools.github.io/devtools-protocol/ for the commands.
"""

from __future__ import annotations

import base64
import fcntl
import itertools
import json
import os
import select
import shutil
import signal
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",  # or they take a part of the width
    "--no-first-run",
    "--disable-background-networking",  # it calls nobody of its own accord
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
    "--remote-debugging-pipe",
)
ANSWER_SECONDS = 60  # that a message may take on a busy machine
COMMANDS_FD, ANSWERS_FD = 3, 4  # where Chromium reads and writes


def find() -> str:
    """Chromium's file. Skips the test where there is none, and fails it with REQUIRE_CHROMIUM=1."""
    if found := next(filter(None, map(shutil.which, NAMES)), None):
        return found
    if os.environ.get("REQUIRE_CHROMIUM") == "1":
        pytest.fail("expected Chromium (REQUIRE_CHROMIUM=1), found none: apt-get install chromium")
    pytest.skip("needs Chromium")


class Browser:
    """One browser with a profile of its own; a context manager."""

    def __init__(self) -> None:
        binary = find()
        self._profile = tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True)
        commands_out, self._commands = _high_pipe()
        self._answers, answers_in = _high_pipe()
        silent = os.open(os.devnull, os.O_RDWR)
        self._process = os.posix_spawn(
            binary,
            [binary, *FLAGS, f"--user-data-dir={self._profile.name}", "about:blank"],
            os.environ,
            file_actions=[
                (os.POSIX_SPAWN_DUP2, commands_out, COMMANDS_FD),
                (os.POSIX_SPAWN_DUP2, answers_in, ANSWERS_FD),
                *((os.POSIX_SPAWN_DUP2, silent, standard) for standard in (0, 1, 2)),
            ],
            setpgroup=0,  # its helpers end with it
        )
        for descriptor in (commands_out, answers_in, silent):
            os.close(descriptor)
        self._numbers = itertools.count(1)
        self._buffer = b""
        self.events: list[dict[str, Any]] = []

    def __enter__(self) -> Browser:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._commands)
        os.close(self._answers)
        os.killpg(self._process, signal.SIGKILL)
        os.waitpid(self._process, 0)
        self._profile.cleanup()

    def call(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """Send a command and wait for its result; events that come meanwhile are kept in `events`."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters}
        if session:
            message["sessionId"] = session
        rest = memoryview(json.dumps(message).encode() + b"\0")
        while rest:
            rest = rest[os.write(self._commands, rest) :]
        while True:
            answer = self._receive()
            if answer.get("id") == number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]
            self.events.append(answer)

    def wait(self, method: str, session: str) -> dict[str, Any]:
        """The next event of a kind, taken out of `events`."""
        while True:
            for event in self.events:
                if event.get("method") == method and event.get("sessionId") == session:
                    self.events.remove(event)
                    return event["params"]
            self.events.append(self._receive())

    def _receive(self) -> dict[str, Any]:
        deadline = time.monotonic() + ANSWER_SECONDS
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._answers], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"expected an answer of Chromium within {ANSWER_SECONDS} s, got none"
            more = os.read(self._answers, 1 << 16)
            assert more, "expected an answer of Chromium, but it has ended"
            self._buffer += more
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)

    def open(self, url: str, width: int = 1200, height: int = 900, dark: bool = False, script: bool = True) -> Page:
        """A tab that has loaded `url`; `script`: whether the page's scripts run."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = Page(self, session)
        for domain in ("Page", "Runtime", "Log", "Network"):
            page.call(f"{domain}.enable")
        page.call("Emulation.setScriptExecutionDisabled", value=not script)
        page.look(width, height, dark)
        page.call("Page.navigate", url=url)
        self.wait("Page.loadEventFired", session)
        return page


class Page:
    """A tab."""

    def __init__(self, browser: Browser, session: str) -> None:
        self._browser = browser
        self._session = session

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        return self._browser.call(method, self._session, **parameters)

    def look(self, width: int, height: int = 900, dark: bool = False) -> None:
        """Size of the window in px, and the colour scheme that the reader prefers."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def run(self, script: str) -> Any:
        """The value of an expression in the page, awaited."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def text(self, selector: str) -> str:
        return self.run(f"document.querySelector({json.dumps(selector)}).textContent")

    def until(self, script: str) -> None:
        """Returns once an expression is true."""
        deadline = time.monotonic() + ANSWER_SECONDS
        while not self.run(script):
            assert time.monotonic() < deadline, f"expected {script} within {ANSWER_SECONDS} s"
            time.sleep(0.02)

    def click(self, selector: str) -> None:
        """As a mouse does: what lies on top at the element's centre is hit."""
        box = self.run(
            f"(() => {{ const found = document.querySelector({json.dumps(selector)});"
            "found.scrollIntoView({block: 'center', behavior: 'instant'});"
            "const box = found.getBoundingClientRect();"
            "return {x: box.x + box.width / 2, y: box.y + box.height / 2}; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, **box)

    def press(self, key: str, text: str = "") -> None:
        """One key: press("Tab"), press(" ", " ")."""
        code = {"Tab": 9, " ": 32, "Enter": 13}[key]
        self.call("Input.dispatchKeyEvent", type="keyDown", key=key, text=text, windowsVirtualKeyCode=code)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key, windowsVirtualKeyCode=code)

    def screenshot(self, path: Path, whole: bool = True) -> None:
        """A PNG of the window, or of the whole page."""
        shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(shot["data"]))

    def events(self, method: str) -> list[dict[str, Any]]:
        self.run("0")  # whatever came before has arrived then
        return [
            event["params"]
            for event in self._browser.events
            if event.get("method") == method and event.get("sessionId") == self._session
        ]

    @property
    def complaints(self) -> list[str]:
        """Errors and warnings of scripts, of the console and of the browser."""
        thrown = [str(event["exceptionDetails"]) for event in self.events("Runtime.exceptionThrown")]
        console = [str(event) for event in self.events("Runtime.consoleAPICalled") if event["type"] != "log"]
        logged = [
            event["entry"]["text"]
            for event in self.events("Log.entryAdded")
            if event["entry"]["level"] in ("error", "warning")
        ]
        return thrown + console + logged

    @property
    def fetched(self) -> list[str]:
        """Addresses that were asked for, but for pictures within the page."""
        urls = [event["request"]["url"] for event in self.events("Network.requestWillBeSent")]
        return [url for url in urls if not url.startswith("data:")]


def _high_pipe() -> tuple[int, int]:
    """A pipe whose ends are not among the numbers that Chromium expects."""
    ends = os.pipe()
    high = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in ends]
    for end in ends:
        os.close(end)
    return high[0], high[1]
