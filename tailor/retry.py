"""One way to retry: exponential backoff with jitter, for TailorErrors that are retryable.

Built on tenacity. (stamina, which wraps it, logs the arguments of what it retries, and its waits cannot be interrupted.)
"""

import threading
import time
from collections.abc import Callable
from typing import TypeVar

import tenacity

from tailor.errors import TailorError

T = TypeVar("T")


class Stopped(BaseException):
    """The process was asked to stop during a wait. Not an Exception, so that no handler swallows it."""


def retry(
    work: Callable[[], T],
    *,
    stop: threading.Event | None = None,
    attempts: int | None = None,
    give_up_seconds: float | None = None,
    initial_seconds: float = 0.2,
    max_seconds: float = 2.0,
    factor: float = 2.0,
    on_wait: Callable[[TailorError, int], None] | None = None,
    sleep: Callable[[float], None] | None = None,
) -> T:
    """Call `work` until it raises no retryable TailorError, and return its result. Blocks.

    Waits `initial_seconds`, then `factor` times longer after each failure, up to `max_seconds`, shortened by up to half at random.
    Raises the last error after `attempts` calls, or when `give_up_seconds` have passed; with neither it never gives up.
    Raises Stopped as soon as `stop` is set during a wait. Any other exception passes through at once. `on_wait` receives the error and the
    number of the failed attempt before each wait. A `retry_after_seconds` of the error is waited for at least.
    """
    deadline = None if give_up_seconds is None else time.monotonic() + give_up_seconds

    def seconds(state: tenacity.RetryCallState) -> float:
        backoff = min(max_seconds, initial_seconds * factor ** (state.attempt_number - 1))
        return max(_error(state).retry_after_seconds or 0.0, tenacity.wait_random(backoff / 2, backoff)(state))

    def is_over(state: tenacity.RetryCallState) -> bool:
        is_late = deadline is not None and time.monotonic() >= deadline
        return is_late or (attempts is not None and state.attempt_number >= attempts)

    def wait(duration: float) -> None:
        if sleep is not None:
            sleep(duration)
        if stop is not None and stop.wait(0 if sleep else duration):
            raise Stopped
        if sleep is None and stop is None:
            time.sleep(duration)

    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception(lambda error: isinstance(error, TailorError) and error.retryable),
        wait=seconds,
        stop=is_over,
        sleep=wait,
        reraise=True,
        before_sleep=None if on_wait is None else lambda state: on_wait(_error(state), state.attempt_number),
    )
    return retrying(work)


def _error(state: tenacity.RetryCallState) -> TailorError:
    error = state.outcome.exception() if state.outcome else None
    assert isinstance(error, TailorError)  # noqa: S101 - `retry_if_exception` admits nothing else
    return error
