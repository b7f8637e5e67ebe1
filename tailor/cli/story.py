"""How a long command tells what it does: steps, each timed, with one line for what is happening now."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.status import Status
from rich.text import Text

LINE_SECONDS = 10.0


class Story:
    """Prints a line when a step begins and when it ends.

    In between, a terminal shows the newest text of `now`; other outputs get it as a line every 10 s.
    """

    def __init__(self, console: Console) -> None:
        self.seconds: dict[str, float] = {}
        self._console = console
        self._status = Status("", console=console)
        self._text = ""
        self._printed_at = 0.0

    @contextmanager
    def step(self, name: str, purpose: str) -> Iterator[None]:
        """Time a step, and print how it ends."""
        started, outcome = time.monotonic(), "failed"
        self._text = ""
        self.note(f"{name}: {purpose} ...")
        try:
            with self._status:
                yield
            outcome = "done"
        finally:
            self.seconds[name] = round(time.monotonic() - started, 1)
            self.note(f"{name}: {outcome} in {self.seconds[name]:.1f} s. {self._text}")

    def now(self, text: str) -> None:
        """Say what the running step is doing. Cheap, so call it as often as you like."""
        self._text = text
        self._status.update(Text(text))
        if not self._console.is_terminal and time.monotonic() - self._printed_at > LINE_SECONDS:
            self.note(f"  {text}")

    def note(self, text: str) -> None:
        """Print a line that stays."""
        self._printed_at = time.monotonic()
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)
