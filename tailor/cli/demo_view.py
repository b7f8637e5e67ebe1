"""What the demo shows while it runs: a live table on a terminal, plain lines elsewhere."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

# Without a terminal, how often a phase that goes on says so.
LINE_SECONDS = 10.0


@dataclass
class Phase:
    """One phase as it is shown."""

    name: str
    state: str = "open"
    text: str = ""
    started: float = 0.0
    seconds: float = 0.0

    def elapsed(self) -> float:
        """Seconds so far, or in all."""
        return time.monotonic() - self.started if self.state == "running" else self.seconds


class View:
    """Shows the phases. `now` says what the running phase is at; it may be called as often as one likes."""

    def __init__(self, console: Console, phases: Sequence[str]) -> None:
        self._console = console
        self._phases = {name: Phase(name) for name in phases}
        self._running: Phase | None = None
        self._extra: RenderableType = ""
        self._said_at = 0.0
        self._live = (
            Live(get_renderable=self._render, console=console, refresh_per_second=6) if console.is_terminal else None
        )
        self._spinner = Spinner("dots")

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: Any) -> None:
        if self._live:
            self._extra = ""
            self._live.stop()

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds of each phase."""
        return {phase.name: round(phase.seconds, 1) for phase in self._phases.values()}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """The phase runs while the block does."""
        phase = self._phases[name]
        phase.state, phase.started, self._running = "running", time.monotonic(), phase
        self._line(f"{name} ...")
        try:
            yield
        except BaseException:
            self._end(phase, "failed")
            raise
        self._end(phase, "done")

    def now(self, text: str) -> None:
        """Say what the running phase is at."""
        if self._running:
            self._running.text = text
        if time.monotonic() - self._said_at > LINE_SECONDS:
            self._line(f"  {text}")

    def show(self, renderable: RenderableType) -> None:
        """Show something below the phases, on a terminal only."""
        self._extra = renderable

    def _end(self, phase: Phase, state: str) -> None:
        phase.seconds, phase.state, self._running, self._extra = phase.elapsed(), state, None, ""
        self._line(f"{phase.name}: {state} in {phase.seconds:.1f} s. {phase.text}")

    def _line(self, text: str) -> None:
        self._said_at = time.monotonic()
        if not self._live:
            self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def _render(self) -> RenderableType:
        made = Table(box=None, pad_edge=False, show_header=False)
        for column, width in (("mark", 2), ("phase", 11), ("seconds", 7)):
            made.add_column(column, width=width, justify="right" if column == "seconds" else "left")
        made.add_column("now", overflow="fold")
        for phase in self._phases.values():
            seconds = "" if phase.state == "open" else f"{phase.elapsed():.0f} s"
            style = {"open": "dim", "running": "bold", "failed": "red"}.get(phase.state, "")
            made.add_row(self._mark(phase), Text(phase.name, style), Text(seconds, "dim"), Text(phase.text))
        return Group(made, self._extra)

    def _mark(self, phase: Phase) -> RenderableType:
        if phase.state == "running":
            return self._spinner
        return {"done": Text("✓", "green"), "failed": Text("✗", "red")}.get(phase.state, Text("·", "dim"))
