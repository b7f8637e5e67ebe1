"""How a long command waits, and tells what it does: timed steps, and one line for what is happening now."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.status import Status
from rich.text import Text

from tailor.errors import DeadlineExceeded, Reason
from tailor.retry import retry

T = TypeVar("T")
Report = Callable[[str], None]

LINE_SECONDS = 60.0


class ProgressReporter:
    """Prints a line when a step begins and when it ends.

    In between, a terminal shows the newest text of `now`; other outputs get it as a line a minute.
    """

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self.seconds: dict[str, float] = {}
        self._console = console
        self._clock = clock
        self._status = Status("", console=console)
        self._text = ""
        self._printed_at = 0.0

    @contextmanager
    def step(self, name: str, purpose: str) -> Iterator[None]:
        """Time a step, and print how it ends."""
        started, outcome = self._clock(), "failed"
        self._text = ""
        self.note(f"{name}: {purpose} ...")
        try:
            with self._status:
                yield
            outcome = "done"
        finally:
            self.seconds[name] = round(self._clock() - started, 1)
            self.note(f"{name}: {outcome} in {self.seconds[name]:.1f} s. {self._text}")

    def now(self, text: str) -> None:
        """Say what the running step is doing. Cheap, so call it as often as you like."""
        self._text = text
        self._status.update(Text(text))
        if not self._console.is_terminal and self._clock() - self._printed_at > LINE_SECONDS:
            self.note(f"  {text}")

    def note(self, text: str) -> None:
        """Print a line that stays."""
        self._printed_at = self._clock()
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)


def wait_out_errors(call: Callable[[], T], now: Report, give_up_seconds: float = 300.0) -> T:
    """Call until it succeeds, waiting out retryable errors such as a service that restarts."""
    return retry(
        call,
        give_up_seconds=give_up_seconds,
        initial_seconds=0.5,
        on_wait=lambda error, attempt: now(f"waiting: {error.message}"),
    )


def wait_for(
    check: Callable[[], tuple[T | None, str]], now: Report, *, stalled_seconds: float = 600.0, poll_seconds: float = 0.5
) -> T:
    """Call `check` until it returns a result. Its text says what it sees; if that stays the same for too long, raise DeadlineExceeded."""
    last, since = "", time.monotonic()
    while True:
        result, text = wait_out_errors(check, now)
        if result is not None:
            return result
        if text != last:
            last, since = text, time.monotonic()
        elif time.monotonic() - since > stalled_seconds:
            raise DeadlineExceeded(Reason.STALLED, f"Nothing has changed for {stalled_seconds:.0f} s: {text}.")
        now(text)
        time.sleep(poll_seconds)
