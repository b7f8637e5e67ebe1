"""Two sides in turns of some seconds on one noisy machine: while one runs, the other is held. So both see the same minutes, and neither takes a share
of the other's. Uses only Linux's signals and /proc."""

import os
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from bench.children import cpu_seconds

POLL_SECONDS = 0.02


@dataclass(frozen=True)
class Look:
    """The clock, seconds since 1970, and the CPU seconds of all processes that count until then."""

    clock: float
    cpu_seconds: float


@dataclass
class Contender:
    """Processes that run, or are held together; it runs when it is made. `held` gives their numbers at any time, `counted` the numbers of those of
    which the CPU seconds count while it runs."""

    held: Callable[[], Sequence[int]]
    counted: Callable[[], Sequence[int]]
    ended: Callable[[], bool]
    windows: list[tuple[Look, Look]] = field(default_factory=list)
    _began: Look | None = None

    def __post_init__(self) -> None:
        self._began = self._look()

    def hold(self) -> None:
        """Stop it where it is."""
        self._signal(signal.SIGSTOP)
        if self._began is not None:
            self.windows.append((self._began, self._look()))
        self._began = None

    def release(self) -> None:
        """Let it go on."""
        if self._began is None:
            self._began = self._look()
            self._signal(signal.SIGCONT)

    def ran(self, since: float, until: float) -> Look:
        """Seconds that it ran between two clocks, and the CPU seconds of that time; within a window it is taken to be equally busy."""
        clock = cpu = 0.0
        for began, ended in self.windows:
            seconds = max(0.0, min(until, ended.clock) - max(since, began.clock))
            clock += seconds
            cpu += (ended.cpu_seconds - began.cpu_seconds) * seconds / (ended.clock - began.clock)
        return Look(clock, cpu)

    def _signal(self, number: signal.Signals) -> None:
        for process in self.held():
            with suppress(ProcessLookupError):
                os.kill(process, number)

    def _look(self) -> Look:
        return Look(time.time(), sum(map(cpu_seconds, self.counted())))


def alternate(first: Contender, second: Contender, turn_seconds: float) -> None:
    """Run two sides that are held, in turns, until each has ended; who begins a pair of turns changes. Both are held then."""
    pair = (first, second)
    while not (first.ended() and second.ended()):
        for side in pair:
            _take_turn(side, turn_seconds)
        pair = (pair[1], pair[0])


def _take_turn(side: Contender, seconds: float) -> None:
    if side.ended():
        return
    side.release()
    until = time.monotonic() + seconds
    while time.monotonic() < until and not side.ended():
        time.sleep(POLL_SECONDS)
    side.hold()
