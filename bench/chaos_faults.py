"""The faults of a history: what is struck, how, and at which point. The plan follows from the seed; the rest strikes."""

import ctypes
import os
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from random import Random
from typing import TypeVar

from tailor.local import processes, stack
from tailor.local.layout import SERVICES, STORES
from tests.real.kinds import OwnServer

T = TypeVar("T")

KILL, PAUSE, CUT = "kill", "pause", "cut"
ACTIONS = (KILL, PAUSE, CUT)
WORKER = "worker"
WORKER_MODULE = "services.training.worker"
COMPONENTS = (*SERVICES, WORKER, *STORES)
# Where a history can be struck: what its clients do, and the facts that pass on the log. Those that come often stand twice.
OFTEN = (
    "document.sent",
    "call.sent",
    "document.ingested.v1",
    "document.anonymized.v1",
    "draft.created.v1",
)
POINTS = (
    *OFTEN,
    *OFTEN,
    "tombstone.sent",
    "ranking.sent",
    "document.erased.v1",
    "document.forgotten.v1",
    "judgement.recorded.v1",
    "dataset.built.v1",
    "run.progressed.v1",
    "adapter.trained.v1",
    "adapter.evaluated.v1",
    "specialist.serving.v1",
)
TRAINING_POINT = "run.progressed.v1"
MAX_DELAY_SECONDS = 1.5
MIN_SECONDS, MAX_SECONDS = 1.0, 8.0
# The share of faults whose component recovers before the next one strikes; the others overlap.
CALM_SHARE = 0.7
CUT_EVERY_SECONDS = 0.05
# pidfd_getfd(2); the number is the same on all architectures.
PIDFD_GETFD = 438


@dataclass(frozen=True)
class Strike:
    """One fault. It strikes `delay` seconds after the point is passed and lasts `seconds`; a killed process is restarted after them, if
    no supervisor restarts it before. `waits` is true if the next fault waits until the component is ready again."""

    number: int
    point: str
    component: str
    action: str
    delay: float
    seconds: float
    waits: bool


def plan_faults(seed: int, count: int, components: Sequence[str] = COMPONENTS) -> list[Strike]:
    """The faults of a seed. A shorter plan is the beginning of a longer one. Points, components and actions take turns."""
    return list(islice(_faults(Random(seed), components), count))


def _faults(random: Random, components: Sequence[str]) -> Iterator[Strike]:
    points, targets, actions = (_deal(random, deck) for deck in (POINTS, components, ACTIONS))
    number = 0
    while True:
        number += 1
        point, component, action = next(points), next(targets), next(actions)
        yield Strike(
            number=number,
            point=TRAINING_POINT if component == WORKER else point,
            component=component,
            action=action,
            delay=round(random.uniform(0, MAX_DELAY_SECONDS), 2),
            seconds=round(random.uniform(MIN_SECONDS, MAX_SECONDS), 2),
            waits=random.random() < CALM_SHARE,
        )


def _deal(random: Random, deck: Sequence[T]) -> Iterator[T]:
    """All cards in a random order, again and again."""
    while True:
        yield from random.sample(deck, len(deck))


class Points:
    """The points that a history passes. Thread-safe."""

    def __init__(self) -> None:
        self.passed: Counter[str] = Counter()
        self._condition = threading.Condition()

    def mark(self, point: str) -> None:
        """The history passes the point."""
        with self._condition:
            self.passed[point] += 1
            self._condition.notify_all()

    def wait(self, point: str, seconds: float) -> bool:
        """Block until the point is passed the next time. False if it was not within `seconds`."""
        with self._condition:
            before = self.passed[point]
            return self._condition.wait_for(lambda: self.passed[point] > before, seconds)


class Striker:
    """Strikes the parts of one stack. `servers` are those of its stores that it does not run itself."""

    def __init__(self, root: Path, servers: Mapping[str, Sequence[OwnServer]]) -> None:
        self._root = root
        self._servers = servers

    def strike(self, fault: Strike) -> bool:
        """Strike, and block until the fault is over. False if the component had no process."""
        if fault.component in self._servers:
            servers = self._servers[fault.component]
            return _strike_server(fault, servers[fault.number % len(servers)])
        pids = self._pids(fault.component)
        if not pids:
            return False
        if fault.action == KILL:
            _send(self._main(fault.component, pids), signal.SIGKILL)
        else:
            _hold(fault, pids)
        return True

    def wait_ready(self, component: str, seconds: float) -> bool:
        """Block until the component is ready; a worker counts as ready."""
        deadline = time.monotonic() + seconds
        while component != WORKER and component in self.not_ready():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.5)
        return True

    def not_ready(self) -> list[str]:
        """The components that are not ready."""
        snapshot = stack.status(self._root)
        states = {} if snapshot is None else snapshot.components
        return sorted(name for name, state in states.items() if state.state != "ready") if states else ["the stack"]

    def _pids(self, component: str) -> list[int]:
        if component != WORKER:
            return processes.find_marked(self._root, component)
        # Workers outlive their service, so they do not bear its mark.
        pids = processes.find_marked(self._root)
        return [pid for pid in pids if WORKER_MODULE in processes.command_of(pid)]

    def _main(self, component: str, pids: Sequence[int]) -> list[int]:
        """The process that the supervisor started; what it has started dies or notices."""
        snapshot = stack.status(self._root)
        state = None if snapshot is None else snapshot.components.get(component)
        return [state.process.pid] if state is not None and state.process is not None else list(pids)


def _strike_server(fault: Strike, server: OwnServer) -> bool:
    process = server.server.process
    if process is None or process.poll() is not None:
        return False
    if fault.action == KILL:
        server.server.kill()
        time.sleep(fault.seconds)
        server.start()
    else:
        _hold(fault, [process.pid])
    return True


def _hold(fault: Strike, pids: Sequence[int]) -> None:
    if fault.action == PAUSE:
        try:
            _send(pids, signal.SIGSTOP)
            time.sleep(fault.seconds)
        finally:
            _send(pids, signal.SIGCONT)
    else:
        deadline = time.monotonic() + fault.seconds
        while time.monotonic() < deadline:
            for pid in pids:
                cut_connections(pid)
            time.sleep(CUT_EVERY_SECONDS)


def _send(pids: Sequence[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def cut_connections(pid: int) -> int:
    """Break the TCP connections of a process, as a network does. Returns their number. Listening sockets stay.

    Raises PermissionError unless this process may trace the other one: as root, or with kernel.yama.ptrace_scope = 0.
    """
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return 0
    try:
        return sum(_cut(process, int(entry.name)) for entry in _descriptors(pid))
    finally:
        os.close(process)


def _descriptors(pid: int) -> Iterator[Path]:
    """The sockets among the descriptors of a process; none if it has ended."""
    with suppress(FileNotFoundError, ProcessLookupError):
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                if str(entry.readlink()).startswith("socket:"):
                    yield entry


def _cut(process: int, descriptor: int) -> bool:
    copy = ctypes.CDLL(None, use_errno=True).syscall(PIDFD_GETFD, process, descriptor, 0)
    if copy < 0:
        if ctypes.get_errno() == 1:
            raise PermissionError("cutting connections needs root, or kernel.yama.ptrace_scope = 0")
        return False
    with socket.socket(fileno=copy) as connection, suppress(OSError):
        if connection.family in (socket.AF_INET, socket.AF_INET6) and connection.type == socket.SOCK_STREAM:
            connection.getpeername()
            connection.shutdown(socket.SHUT_RDWR)
            return True
    return False
