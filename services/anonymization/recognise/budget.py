"""A limit on the time that one text may take, and its cancellation: checked between batches of paragraphs."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from tailor.errors import DeadlineExceeded, Reason


def _never() -> bool:
    return False


@dataclass(frozen=True)
class TimeBudget:
    """The moment (of `time.monotonic`) at which work on a text ends, and whether its caller has gone."""

    ends_at: float
    is_cancelled: Callable[[], bool] = _never

    def check(self) -> None:
        """Raises DeadlineExceeded (TEXT_TOO_SLOW) if the time is spent or nobody waits for the answer."""
        if time.monotonic() > self.ends_at or self.is_cancelled():
            raise DeadlineExceeded(
                Reason.TEXT_TOO_SLOW, "Finding personal values in the text took too long; send it in smaller parts."
            )


_current: ContextVar[TimeBudget | None] = ContextVar("budget", default=None)


@contextmanager
def limit(seconds: float, is_cancelled: Callable[[], bool] = _never) -> Iterator[None]:
    """Limit the work on a text in this thread to `seconds`. An outer limit still holds, and so does its cancellation."""
    outer = _current.get() or TimeBudget(math.inf)
    ends_at = min(time.monotonic() + seconds, outer.ends_at)
    token = _current.set(TimeBudget(ends_at, lambda: is_cancelled() or outer.is_cancelled()))
    try:
        yield
    finally:
        _current.reset(token)


def check() -> None:
    """Raises DeadlineExceeded (TEXT_TOO_SLOW) if the current limit is spent. Without a limit, nothing happens."""
    budget = _current.get()
    if budget is not None:
        budget.check()
