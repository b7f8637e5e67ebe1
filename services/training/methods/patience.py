"""Waiting for a dependency that is away."""

import random
import time
from collections.abc import Callable
from typing import TypeVar

from tailor.errors import TailorError
from tailor.logging import get_logger

log = get_logger(__name__)

T = TypeVar("T")


def patiently(what: str, call: Callable[[], T], *, seconds: float = 900.0) -> T:
    """The call's result; a retryable error is retried with backoff for so many seconds, then raised."""
    deadline = time.monotonic() + seconds
    delay = 0.2
    while True:
        try:
            return call()
        except TailorError as error:
            if not error.retryable or error.reason == "STALE_EPOCH" or time.monotonic() + delay > deadline:
                raise
            log.warning("worker waits", waiting_for=what, reason=error.reason)
        time.sleep(delay * random.uniform(0.7, 1.0))  # noqa: S311 - jitter, not a secret
        delay = min(delay * 2, 5.0)
