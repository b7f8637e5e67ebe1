"""Processes by pid, start time and environment mark, read from /proc. Linux only."""

import contextlib
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tailor.local.layout import COMPONENT_MARK, STATE_DIR_MARK

PROC = Path("/proc")


@dataclass(frozen=True)
class ProcessRef:
    """One process. `start_ticks` distinguishes it from a later process with the same pid."""

    pid: int
    start_ticks: int

    def is_alive(self) -> bool:
        """True if this process runs. A zombie does not."""
        stat = _stat(self.pid)
        return stat is not None and stat.state not in "ZX" and stat.start_ticks == self.start_ticks


@dataclass(frozen=True)
class _Stat:
    state: str
    parent: int
    group: int
    start_ticks: int


def identify(pid: int) -> ProcessRef | None:
    """The process with this pid, or None."""
    stat = _stat(pid)
    return None if stat is None else ProcessRef(pid, stat.start_ticks)


def command_of(pid: int) -> tuple[str, ...]:
    """The command line of a process; empty if it has ended."""
    raw = _read(PROC / str(pid) / "cmdline")
    return tuple(part.decode(errors="replace") for part in raw.rstrip(b"\0").split(b"\0")) if raw else ()


def children_of(parent: int) -> list[int]:
    """The pids of the direct children, including zombies."""
    return [pid for pid, stat in _all() if stat.parent == parent]


def group_members(group: int) -> list[int]:
    """The pids of the running processes in a group."""
    return [pid for pid, stat in _all() if stat.group == group and stat.state not in "ZX"]


def find_marked(state_dir: Path, component: str | None = None) -> list[int]:
    """The pids of all running processes that a stack, or one of its components, started directly or indirectly."""
    marks = {f"{STATE_DIR_MARK}={state_dir}".encode()}
    if component is not None:
        marks.add(f"{COMPONENT_MARK}={component}".encode())
    return [
        pid
        for pid, stat in _all()
        if stat.state not in "ZX" and marks <= set(_read(PROC / str(pid) / "environ").split(b"\0"))
    ]


def count_memory_kills() -> int:
    """How many processes of this machine the kernel killed because memory ran out; 0 if it does not count them."""
    counts = dict(line.split() for line in _read(PROC / "vmstat").decode().splitlines())
    return int(counts.get("oom_kill", 0))


def kill(pids: list[int]) -> None:
    """Kill the processes. Pids that have ended are ignored."""
    for pid in pids:
        if pid != os.getpid():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _all() -> Iterator[tuple[int, _Stat]]:
    for entry in PROC.iterdir():
        if entry.name.isdigit():
            stat = _stat(int(entry.name))
            if stat is not None:
                yield int(entry.name), stat


def _stat(pid: int) -> _Stat | None:
    raw = _read(PROC / str(pid) / "stat")
    if not raw:
        return None
    # The process name may itself contain spaces and brackets, so start after the last bracket.
    fields = raw[raw.rindex(b")") + 2 :].split()
    return _Stat(fields[0].decode(), int(fields[1]), int(fields[2]), int(fields[19]))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
