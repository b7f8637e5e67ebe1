"""Waiting as the demo does it: a service that restarts is waited out, a flow that stands still is not."""

import time
from collections.abc import Callable, Iterable
from typing import TypeVar

from tailor.errors import DeadlineExceeded, Reason, TailorError

T = TypeVar("T")

Tell = Callable[[str], None]

PATIENCE_SECONDS = 300.0
STALLED_SECONDS = 600.0
POLL_SECONDS = 0.5


class Patience:
    """Waits out retryable errors, until they last too long without a success between."""

    def __init__(self, tell: Tell, seconds: float = PATIENCE_SECONDS) -> None:
        self._tell = tell
        self._seconds = seconds
        self._since: float | None = None

    def renew(self) -> None:
        """Something worked."""
        self._since = None

    def bear(self, error: TailorError) -> None:
        """Pause before the next try; raises the error where it is not retryable or has lasted too long."""
        self._since = self._since or time.monotonic()
        if not error.retryable or time.monotonic() - self._since > self._seconds:
            raise error
        self._tell(f"waits: {error.message}")
        time.sleep(max(POLL_SECONDS, min(error.retry_after_seconds or 0.0, 10.0)))


def patiently(call: Callable[[], T], tell: Tell, seconds: float = PATIENCE_SECONDS) -> T:
    """The call's result; retryable errors are waited out."""
    patience = Patience(tell, seconds)
    while True:
        try:
            return call()
        except TailorError as error:
            patience.bear(error)


def until(
    check: Callable[[], tuple[T | None, str]],
    tell: Tell,
    *,
    stalled_seconds: float = STALLED_SECONDS,
    poll_seconds: float = POLL_SECONDS,
) -> T:
    """The check's result, once there is one. The check also says what it sees; DeadlineExceeded where that does not change for too long."""
    seen, since = "", time.monotonic()
    while True:
        result, text = patiently(check, tell)
        if result is not None:
            return result
        if text != seen:
            seen, since = text, time.monotonic()
        elif time.monotonic() - since > stalled_seconds:
            raise DeadlineExceeded(Reason.STALLED, f"Nothing moved for {stalled_seconds:.0f} s: {text}.")
        tell(text)
        time.sleep(poll_seconds)


def follow(
    open_stream: Callable[[], Iterable[T]], ended: Callable[[T], bool], see: Callable[[T], None], tell: Tell
) -> T:
    """The item of a stream that ends it; a stream that breaks off is opened again."""
    patience = Patience(tell)
    while True:
        try:
            for item in open_stream():
                patience.renew()
                see(item)
                if ended(item):
                    return item
        except TailorError as error:
            patience.bear(error)
        else:
            time.sleep(POLL_SECONDS)
