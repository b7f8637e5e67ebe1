"""Start, inspect and stop an embedded stack, for the command line and for tests. Light to import."""

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tailor.errors import DeadlineExceeded, FailedPrecondition, Reason, Unavailable
from tailor.events.access import OPERATOR, PUBLISHER, PUBLISHERS
from tailor.local import processes
from tailor.local.layout import ROOT, SERVICES, Layout
from tailor.local.own_stores import OwnStores, choose_stores, load_own_stores
from tailor.local.setpriv import find_setpriv
from tailor.local.state import StackSnapshot, load, save
from tailor.settings import KafkaSettings

DEFAULT_STATE_DIR = Path(".tailor")
# For another supervisor to begin or to end, and for our own, which a busy machine may keep from its imports.
HANDOVER_SECONDS, START_SECONDS = 30.0, 300.0
STOP_SECONDS = 45.0
POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Connection:
    """The addresses of a stack's parts, and the files with its credentials.

    Each of the `publishers` may write one topic; `reader` may read every topic outside the raw zone. All are the same at the embedded
    broker, which asks nobody.
    """

    publishers: Mapping[str, KafkaSettings]
    reader: KafkaSettings
    publisher_password_file: Path
    kcat_file: Path
    own_stores: OwnStores
    s3_endpoint: str
    service_addresses: Mapping[str, str]
    console_url: str
    inference_url: str
    operator_key_file: Path
    protection_key_file: Path
    console_password_file: Path

    @property
    def publisher(self) -> KafkaSettings:
        """Who publishes documents."""
        return self.publishers[PUBLISHER]


@dataclass(frozen=True)
class Stack:
    """A stack that was started."""

    layout: Layout

    def snapshot(self) -> StackSnapshot:
        """The current state. Raises Unavailable(STACK_ENDED) if the supervisor has ended."""
        snapshot = load(self.layout.stack_file)
        if snapshot is None or not snapshot.running:
            raise Unavailable(
                Reason.STACK_ENDED, f"The stack is not running; see {self.layout.log_file('supervisor')}."
            )
        return snapshot

    def wait_ready(
        self, timeout_seconds: float = 120.0, show: Callable[[StackSnapshot], None] = lambda snapshot: None
    ) -> StackSnapshot:
        """Block until every component is ready; `show` receives each state on the way.

        Raises DeadlineExceeded(STACK_NOT_READY), FailedPrecondition(COMPONENT_FAILED) or Unavailable(STACK_ENDED).
        """
        deadline = time.monotonic() + timeout_seconds
        while True:
            snapshot = self.snapshot()
            show(snapshot)
            if snapshot.ready:
                return snapshot
            for component in snapshot.components.values():
                if component.state == "failed":
                    text = f"{component.name} {component.detail}; see {self.layout.log_file(component.name)}."
                    raise FailedPrecondition(Reason.COMPONENT_FAILED, text)
            if time.monotonic() > deadline:
                text = f"Not ready after {timeout_seconds:g} s: {snapshot.describe_waiting()}."
                raise DeadlineExceeded(Reason.STACK_NOT_READY, text)
            time.sleep(POLL_SECONDS)


def up(
    state_dir: Path = DEFAULT_STATE_DIR,
    *,
    only: Sequence[str] = (),
    services: Mapping[str, str] | None = None,
    python_path: Sequence[Path] = (),
    own_stores: Mapping[str, Mapping[str, Any]] | None = None,
) -> Stack:
    """Start the stack of a directory unless it runs already. Returns before it is ready.

    `only` names the components to run; empty means all. `services` maps service names to modules, by default `services.<name>`.
    `own_stores` has the tables `kafka`, `s3` and `database` of `[stores]`, over those of the settings file.
    Raises FailedPrecondition(NOT_INSTALLED) without setpriv, Unavailable(STACK_ENDED) if the supervisor ends at once or does not begin
    (it is killed then), and InvalidArgument(INVALID_SETTINGS_FILE) for own stores that are described wrongly.
    """
    find_setpriv()
    layout = Layout(state_dir.resolve())
    layout.root.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not _is_running(layout):
        choose_stores(layout, own_stores or {})
        load_own_stores(layout)
    deadline = time.monotonic() + HANDOVER_SECONDS
    group: int | None = None
    while not _is_running(layout):
        # A killed supervisor's lock is released when its guard has killed the leftover processes.
        with _lock(layout) as free:
            if time.monotonic() > deadline or (group is not None and free):
                if group is not None:
                    processes.kill(processes.group_members(group))
                    _end_leftovers(layout)
                raise Unavailable(Reason.STACK_ENDED, f"The stack did not start; see {layout.log_file('supervisor')}.")
            if free:
                _end_leftovers(layout)
        if free:
            group = _start(layout, only, services, python_path)
            deadline = time.monotonic() + START_SECONDS
        time.sleep(POLL_SECONDS / 2)
    return Stack(layout)


def down(state_dir: Path = DEFAULT_STATE_DIR) -> None:
    """Stop the stack of a directory and any leftover processes of an earlier one. Has no effect if none runs."""
    layout = Layout(state_dir.resolve())
    if not layout.root.is_dir():
        return
    snapshot = load(layout.stack_file)
    if snapshot is not None and snapshot.supervisor is not None and snapshot.running:
        _signal(snapshot.supervisor.pid, signal.SIGTERM)
        if not _wait(lambda: _is_unlocked(layout), STOP_SECONDS):
            _signal(snapshot.supervisor.pid, signal.SIGKILL)
    _wait(lambda: _is_unlocked(layout), 10.0)
    with _lock(layout):
        _end_leftovers(layout)


def status(state_dir: Path = DEFAULT_STATE_DIR) -> StackSnapshot | None:
    """The state of the stack of a directory; None if there has never been one."""
    snapshot = load(Layout(state_dir.resolve()).stack_file)
    return snapshot if snapshot is None or snapshot.running else snapshot.stopped()


def connection(state_dir: Path = DEFAULT_STATE_DIR) -> Connection:
    """The addresses of the stack of a directory. Raises Unavailable(STACK_ENDED) if it does not run."""
    layout = Layout(state_dir.resolve())
    ports = Stack(layout).snapshot().ports
    from tailor.local import secrets
    from tailor.local.store_access import StoreAccess, kafka_settings

    stores = StoreAccess(ports, secrets.ensure(layout), load_own_stores(layout))
    users = {
        # Commands are short: they need no remedy for a broker that forgets.
        user: kafka_settings(stores.kafka(user)).model_copy(update={"kafka_client_module": "kafka"})
        for user in (*PUBLISHERS, OPERATOR)
    }
    return Connection(
        publishers={user: users[user] for user in PUBLISHERS},
        reader=users[OPERATOR],
        publisher_password_file=layout.kafka_password_file(PUBLISHER),
        kcat_file=layout.kcat_file,
        own_stores=stores.own_stores,
        s3_endpoint=stores.s3_endpoint,
        service_addresses={name: ports.address(f"{name}-rpc") for name in SERVICES if name != "console"},
        console_url=f"http://{ports.address('console-http')}",
        inference_url=f"http://{ports.address('inference-http')}",
        operator_key_file=layout.operator_key_file,
        protection_key_file=layout.protection_key_file,
        console_password_file=layout.console_password_file,
    )


def _start(layout: Layout, only: Sequence[str], services: Mapping[str, str] | None, python_path: Sequence[Path]) -> int:
    """Start a supervisor in the background. Returns its process group."""
    command = [sys.executable, "-m", "tailor.local", str(layout.root)]
    command += [f"--only={name}" for name in only]
    command += [f"--service={name}={module}" for name, module in (services or {}).items()]
    command += [f"--python-path={path.resolve()}" for path in python_path]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "GRPC_ENABLE_FORK_SUPPORT": "0", "GRPC_VERBOSITY": "NONE"}
    log = layout.log_file("supervisor")
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        # The command forks into the background and returns; the child holds the lock.
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=layout.root,
            env=environment,
            start_new_session=True,
        )
    if code := process.wait():
        raise subprocess.CalledProcessError(code, command)
    return process.pid


def _is_running(layout: Layout) -> bool:
    snapshot = load(layout.stack_file)
    return snapshot is not None and snapshot.running


@contextlib.contextmanager
def _lock(layout: Layout) -> Iterator[bool]:
    """Hold the supervisor's lock during the block. Yields False if a supervisor holds it."""
    descriptor = os.open(layout.lock_file, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        free = True
    except BlockingIOError:
        free = False
    try:
        yield free
    finally:
        os.close(descriptor)


def _is_unlocked(layout: Layout) -> bool:
    with _lock(layout) as free:
        return free


def _end_leftovers(layout: Layout) -> None:
    """Kill the leftover processes of a killed stack, found by its recorded state and by the mark in their environment."""
    snapshot = load(layout.stack_file)
    recorded = [] if snapshot is None else [part for part in snapshot.components.values() if part.process is not None]
    for part in recorded:
        if (
            part.process is not None
            and part.process.is_alive()
            and processes.command_of(part.process.pid) == part.command
        ):
            processes.kill(processes.group_members(part.process.pid))
    _wait(lambda: not _kill_marked(layout), 10.0)
    if snapshot is not None:
        save(layout.stack_file, snapshot.stopped())


def _kill_marked(layout: Layout) -> bool:
    pids = processes.find_marked(layout.root)
    processes.kill(pids)
    return bool(pids)


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _wait(condition: Callable[[], bool], timeout_seconds: float) -> bool:
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True
