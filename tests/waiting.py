"""Wait for what another thread or process does."""

import inspect
import socket
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
# How many times as long as an idle machine needs, because others are slow or busy.
PATIENCE = 6.0


def wait_until(check: Callable[[], T], seconds: float = 30, description: str = "") -> T:
    """Call `check` until its result is true, and return it. Blocks.

    Raises AssertionError after `seconds` times the patience, with the description (or the source of the check) and its last result.
    """
    seconds *= PATIENCE
    deadline = time.monotonic() + seconds
    while not (result := check()):
        assert time.monotonic() < deadline, f"{description or _source(check)} is still {result!r} after {seconds} s"
        time.sleep(0.02)
    return result


def _source(check: Callable[[], object]) -> str:
    """Where a check without a description stands, as code."""
    try:
        return " ".join(inspect.getsource(check).split())
    except (OSError, TypeError):
        return repr(check)


def wait_for_port(port: int, seconds: float = 10, host: str = "127.0.0.1") -> None:
    """Wait until a server on this machine accepts connections on the port."""

    def connects() -> bool:
        with socket.socket() as client:
            return client.connect_ex((host, port)) == 0

    wait_until(connects, seconds, f"port {port} of {host}")
