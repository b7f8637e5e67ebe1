"""Retry calls that raise a retryable TailorError, with exponential backoff and jitter.

Built on tenacity. Stamina, which wraps it, was not used because it logs the arguments of the call and its waits cannot be interrupted.
"""

import threading
import time
from collections.abc import Callable
from typing import TypeVar

import tenacity

from tailor.errors import TailorError

T = TypeVar("T")

MAX_RETRY_AFTER_SECONDS = 60.0


class Stopped(BaseException):
    """`stop` was set during a wait. Not an Exception, so that no handler of errors swallows it."""


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

    - The first wait takes `initial_seconds`, each further one `factor` times longer, up to `max_seconds`. Each is shortened at random by
      up to half, and lasts at least the error's `retry_after_seconds`, at most a minute of them.
    - Gives up after `attempts` calls, or at the first failure after `give_up_seconds` or after the error's `retry_seconds`, and raises
      the last error. With none of them it never gives up.
    - Any other exception is raised at once.
    - Raises Stopped if `stop` is set before or during a wait.
    - Before each wait, `on_wait` receives the error and the number of the failed attempt, counted from 1.
    """
    start = time.monotonic()
    deadline = None if give_up_seconds is None else start + give_up_seconds

    grow = tenacity.wait_exponential(multiplier=initial_seconds, max=max_seconds, exp_base=factor)

    def seconds(state: tenacity.RetryCallState) -> float:
        backoff = grow(state)
        return max(
            min(_error(state).retry_after_seconds or 0.0, MAX_RETRY_AFTER_SECONDS),
            tenacity.wait_random(backoff / 2, backoff)(state),
        )

    def is_over(state: tenacity.RetryCallState) -> bool:
        limit = _error(state).retry_seconds
        is_late = deadline is not None and time.monotonic() >= deadline
        is_late = is_late or (limit is not None and time.monotonic() - start >= limit)
        return is_late or (attempts is not None and state.attempt_number >= attempts)

    def wait(duration: float) -> None:
        if sleep is not None:
            sleep(duration)
            duration = 0.0
        if (stop or threading.Event()).wait(duration):
            raise Stopped

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
