"""Wait for what another thread or process does."""

import os
import socket
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
# How many times as long a slow machine waits.
PATIENCE = float(os.environ.get("TAILOR_TEST_PATIENCE", "1"))


def wait_until(check: Callable[[], T], seconds: float = 30, description: str = "the check") -> T:
    """Call `check` until its result is true, and return it. Blocks.

    Raises AssertionError with the description after `seconds`, times the patience.
    """
    seconds *= PATIENCE
    deadline = time.monotonic() + seconds
    while not (result := check()):
        assert time.monotonic() < deadline, f"{description} is still {result!r} after {seconds} s"
        time.sleep(0.02)
    return result


def wait_for_port(port: int, seconds: float = 10, host: str = "127.0.0.1") -> None:
    """Wait until a server on this machine accepts connections on the port."""

    def connects() -> bool:
        with socket.socket() as client:
            return client.connect_ex((host, port)) == 0

    wait_until(connects, seconds)
