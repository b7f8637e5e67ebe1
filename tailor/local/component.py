"""The description of a process that the supervisor keeps running."""

import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

RECHECK_SECONDS = 3.0


def _nothing() -> None:
    pass


@dataclass(frozen=True)
class Component:
    """One process.

    `check` may block for a few seconds. It returns None if the component is ready, else what it is waiting for ("" if unknown).
    `prepare` runs before each start; it may block, and may raise OSError or subprocess.SubprocessError. `tidy` runs after the last stop.
    `upkeep` runs every `UPKEEP_SECONDS` while the component is ready; it may block, and raises TailorError if it fails.
    If `recheck_seconds` is None, a component that was ready once counts as ready while it is alive.
    """

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(repr=False)
    directory: Path
    check: Callable[[], str | None]
    addresses: Mapping[str, str]
    needs: tuple[str, ...] = ()
    prepare: Callable[[], None] = _nothing
    tidy: Callable[[], None] = _nothing
    upkeep: Callable[[], None] | None = None
    recheck_seconds: float | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    stop_seconds: float = 10.0
    user: str | None = None
