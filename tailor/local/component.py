"""What the supervisor has to know of a process that it keeps alive."""

import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path


def _nothing() -> None:
    pass


@dataclass(frozen=True)
class Component:
    """One process.

    `check` may block for a few seconds; it returns None when the component is ready, else what it waits for ("" where it does
    not say). `prepare` runs before each start, may block, and raises OSError or subprocess.SubprocessError.
    `tidy` runs after the last stop. `recheck_seconds` None means that once it was ready, being alive is enough.
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
    recheck_seconds: float | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    stop_seconds: float = 10.0
    user: str | None = None
