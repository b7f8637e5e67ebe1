"""Workers as processes of this machine. They outlive a crashed service, which finds them again by their files."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from services.training.domain import Failure, Job
from services.training.exit_code import EXIT_FILE
from services.training.spec import to_json
from tailor.logging import get_logger

log = get_logger(__name__)

GRACE_SECONDS = 30.0
POLL_SECONDS = 0.1
ENDS_WITHIN = timedelta(seconds=GRACE_SECONDS + 10)
UNKNOWN_EXIT = 1
# What torchrun leaves its processes to save, before it kills them; within our own grace.
SAVE_SECONDS = 25


def worker_command(processes: int) -> list[str]:
    """What a worker is started by: itself, or torchrun over several processes of this machine."""
    worker = ["-m", "services.training.worker"]
    if processes == 1:
        return [sys.executable, *worker]
    torchrun = [sys.executable, "-m", "services.training.launchers.torchrun", "--standalone"]
    return [*torchrun, f"--nproc-per-node={processes}", f"--shutdown-timeout={SAVE_SECONDS}", *worker]


@dataclass(frozen=True)
class Process:
    """A process and when it was started, so that a number that was given again is not mistaken for it."""

    pid: int
    started: str


class SubprocessLauncher:
    """Starts the worker's command. `environment` is all that a worker gets, beside its run."""

    def __init__(self, directory: Path, environment: Mapping[str, str], command: Sequence[str]) -> None:
        self._directory = directory
        self._environment = dict(environment)
        self._command = list(command)
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        directory.mkdir(parents=True, exist_ok=True)

    @property
    def ends_within(self) -> timedelta:
        """Half a minute and a little."""
        return ENDS_WITHIN

    def start(self, job: Job) -> None:
        """Start a worker in a session of its own."""
        if job.name in self._children or self._process(job.name) is not None:
            return
        spec = self._directory / f"{job.name}.json"
        spec.write_text(to_json(job), encoding="utf-8")
        child = subprocess.Popen(
            self._command,
            env={**self._environment, "TAILOR_RUN_FILE": str(spec), EXIT_FILE: str(self._exit_file(job.name))},
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._children[job.name] = child
        self._pid_file(job.name).write_text(f"{child.pid} {_started(child.pid)}", encoding="utf-8")

    def exit_code(self, run_id: str, epoch: int) -> int | None:
        """How it ended; None while it runs or where this machine never had it."""
        name = f"{run_id}-{epoch}"
        child = self._children.get(name)
        if child is not None:
            return child.poll()
        if self._pid_file(name).exists() and self._process(name) is None:
            return self._left(name)
        return None

    def waits(self, run_id: str, epoch: int) -> Failure | None:
        """Nothing: a process starts at once."""
        del run_id, epoch
        return None

    def refusal(self, run_id: str, epoch: int) -> Failure | None:
        """None: this machine takes every worker."""
        del run_id, epoch
        return None

    def stop(self, run_id: str, epoch: int) -> None:
        """SIGTERM, and SIGKILL after half a minute."""
        name = f"{run_id}-{epoch}"
        process = self._process(name)
        if process is not None:
            _signal(process, signal.SIGTERM)
            threading.Thread(target=self._make_sure, args=(name,), name="stop-worker", daemon=True).start()

    def stop_all(self) -> None:
        """SIGTERM to every worker of this machine, then wait until they have saved; SIGKILL after half a minute."""
        names = [path.stem for path in self._directory.glob("*.pid")]
        for process in filter(None, map(self._process, names)):
            _signal(process, signal.SIGTERM)
        for name in names:
            self._make_sure(name)

    def _make_sure(self, name: str) -> None:
        deadline = time.monotonic() + GRACE_SECONDS
        while (process := self._process(name)) is not None:
            if time.monotonic() > deadline:
                _signal(process, signal.SIGKILL)
            time.sleep(POLL_SECONDS)

    def _process(self, name: str) -> Process | None:
        """The worker, if it lives."""
        # A child counts as alive until it is reaped; the kernel shows one as a zombie before its last thread has gone.
        child = self._children.get(name)
        if child is not None:
            return Process(child.pid, "") if child.poll() is None else None
        try:
            pid, _, started = self._pid_file(name).read_text(encoding="utf-8").partition(" ")
        except FileNotFoundError:
            return None
        process = Process(int(pid), started)
        return process if started and _started(process.pid) == started else None

    def _left(self, name: str) -> int:
        """The code that a worker which is no child of this process has left."""
        try:
            return int(self._exit_file(name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return UNKNOWN_EXIT

    def _exit_file(self, name: str) -> Path:
        return self._directory / f"{name}.exit"

    def _pid_file(self, name: str) -> Path:
        return self._directory / f"{name}.pid"


def _started(pid: int) -> str:
    """When a process was started, in the kernel's ticks; empty where it does not live."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return "" if fields[0] in {"Z", "X"} else fields[19]


def _signal(process: Process, number: signal.Signals) -> None:
    try:
        os.kill(process.pid, number)
    except ProcessLookupError:
        log.info("worker had ended", pid=process.pid)
