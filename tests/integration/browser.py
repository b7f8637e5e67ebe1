"""Chromium without a window, over the DevTools protocol on a pair of pipes: one page, its size, its errors and what a script returns."""

import json
import os
import select
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.waiting import wait_until

NAMES = ("chromium", "chromium-browser", "google-chrome")
SECONDS = 60.0


def find_browser() -> str | None:
    """The program, or None if this machine has none."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


@dataclass
class BrowserPage:
    """The page of a browser. `errors` has what its console reported since the last `open`, refusals by the security policy among them."""

    requests: int
    answers: int
    session: str = ""
    errors: list[str] = field(default_factory=list)
    _count: int = 0
    _buffer: bytes = b""

    def start(self) -> None:
        """Open an empty page."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def set_cookie(self, url: str, name: str, value: str) -> None:
        self.call("Network.setCookie", url=url, name=name, value=value)

    def open(self, url: str, width: int, height: int) -> None:
        """Show an address in a window of this size. Blocks until it has loaded."""
        self.errors.clear()
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.call("Page.navigate", url=url)
        self._wait(lambda message: message.get("method") == "Page.loadEventFired")

    def evaluate(self, expression: str) -> Any:
        """The value of a script's expression; None if it has none."""
        return self.call("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def press(self, key: str, text: str = "", modifiers: int = 0) -> None:
        """Press and release a key, named as in a script's `event.key`. `text` is what it types; `modifiers` has 2 for Ctrl."""
        typed = text or (key if len(key) == 1 else {"Enter": "\r"}.get(key, ""))
        codes = {"Enter": 13, "Backspace": 8, "Escape": 27, "Tab": 9, "ArrowLeft": 37, "ArrowRight": 39}
        details: dict[str, Any] = {"key": key, "modifiers": modifiers, "windowsVirtualKeyCode": codes.get(key, 0)}
        self.call("Input.dispatchKeyEvent", type="keyDown" if typed else "rawKeyDown", text=typed, **details)
        self.call("Input.dispatchKeyEvent", type="keyUp", **details)

    def wait_for_page(self) -> None:
        """Block until the next page has loaded."""
        self._wait(lambda message: message.get("method") == "Page.loadEventFired")

    def wait_for(self, condition: str) -> None:
        """Block until a script's condition is true. Raises AssertionError if it stays false."""
        wait_until(lambda: self.evaluate(condition), description=condition)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol. Raises AssertionError for an error or after a minute."""
        self._count += 1
        number = self._count
        message = {"id": number, "method": method, "params": parameters}
        message |= {"sessionId": self.session} if self.session else {}
        os.write(self.requests, json.dumps(message).encode() + b"\0")
        answer = self._wait(lambda message: message.get("id") == number)
        assert "error" not in answer, answer
        result: dict[str, Any] = answer["result"]
        return result

    def _wait(self, is_wanted: Any) -> dict[str, Any]:
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            while b"\0" in self._buffer:
                text, self._buffer = self._buffer.split(b"\0", 1)
                message: dict[str, Any] = json.loads(text)
                self._note(message)
                if is_wanted(message):
                    return message
            if select.select([self.answers], [], [], 1.0)[0]:
                self._buffer += os.read(self.answers, 1 << 20)
        raise AssertionError("the browser does not answer")

    def _note(self, message: dict[str, Any]) -> None:
        details = message.get("params", {})
        if message.get("method") == "Log.entryAdded" and details["entry"]["level"] in ("error", "warning"):
            self.errors.append(f"{details['entry']['source']}: {details['entry']['text']}")
        if message.get("method") == "Runtime.exceptionThrown":
            self.errors.append(f"exception: {details['exceptionDetails']['text']}")


@contextmanager
def open_browser(program: str, folder: Path) -> Iterator[BrowserPage]:
    """A browser with an empty profile in a folder; it is ended at the end."""
    read_requests, requests = os.pipe()
    answers, write_answers = os.pipe()
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--remote-debugging-pipe"]
    arguments = [program, *options, f"--user-data-dir={folder}"]
    # The browser reads requests on descriptor 3 and writes answers to 4. Its processes are one group, so that all of them can be ended.
    actions = [
        *((os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_WRONLY, 0) for number in (1, 2)),
        (os.POSIX_SPAWN_DUP2, read_requests, 3),
        (os.POSIX_SPAWN_DUP2, write_answers, 4),
    ]
    process = os.posix_spawn(program, arguments, os.environ, file_actions=actions, setpgroup=0)
    os.close(read_requests)
    os.close(write_answers)
    try:
        page = BrowserPage(requests, answers)
        page.start()
        yield page
    finally:
        os.killpg(process, signal.SIGKILL)
        os.waitpid(process, 0)
        os.close(requests)
        os.close(answers)
