"""Workers as processes of this machine. They survive a crashed service; a restarted one finds them again by their files."""

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
from services.training.ports import Launcher
from services.training.settings import Settings
from services.training.spec import to_json
from tailor.logging import get_logger

log = get_logger(__name__)

GRACE_SECONDS = 30.0
POLL_SECONDS = 0.1
ENDS_WITHIN = timedelta(seconds=GRACE_SECONDS + 10)
UNKNOWN_EXIT = 1
# The time that torchrun gives its processes to save before it kills them; must be within our own grace.
SAVE_SECONDS = 25
# Settings of the service that workers must not get. TAILOR_COMPONENT marks processes that the embedded stack ends with the service, and
# workers must survive it.
WITHHELD = (
    "TAILOR_COMPONENT",
    "TAILOR_DATABASE_",
    "TAILOR_KAFKA_",
    "TAILOR_WORKER_",
    "TAILOR_S3_",
    "TAILOR_IDENTITY_",
    "TAILOR_RPC_",
    "TAILOR_STATUS_",
    "HF_TOKEN",
)


def worker_command(processes: int) -> list[str]:
    """The command that starts a worker: the worker itself, or torchrun over several processes of this machine."""
    worker = ["-m", "services.training.worker"]
    if processes == 1:
        return [sys.executable, *worker]
    torchrun = [sys.executable, "-m", "services.training.launchers.torchrun", "--standalone"]
    return [*torchrun, f"--nproc-per-node={processes}", f"--shutdown-timeout={SAVE_SECONDS}", *worker]


def worker_environment(settings: Settings, inherited: Mapping[str, str]) -> dict[str, str]:
    """The complete environment of a worker on this machine: its own credentials, and none of the service's."""
    environment = {name: value for name, value in inherited.items() if not name.startswith(WITHHELD)}
    return environment | {
        "TAILOR_S3_ENDPOINT": settings.s3_endpoint,
        "TAILOR_S3_SECURE": str(settings.s3_secure).lower(),
        "TAILOR_S3_REGION": settings.s3_region,
        "TAILOR_S3_BUCKET_PREFIX": settings.s3_bucket_prefix,
        "TAILOR_S3_STS_ENDPOINT": settings.s3_sts_endpoint,
        # Without keys, a worker on this machine assumes the role that the service has.
        "TAILOR_S3_ROLE": settings.s3_role,
        **({"TAILOR_S3_TOKEN_FILE": str(settings.s3_token_file)} if settings.s3_token_file else {}),
        "TAILOR_S3_ACCESS_KEY": settings.worker_s3_access_key,
        "TAILOR_S3_SECRET_KEY": settings.worker_s3_secret_key.get_secret_value(),
        "TAILOR_IDENTITY_KEY_FILE": str(settings.worker_identity_key_file),
        "TAILOR_TRUST_FILE": str(settings.trust_file),
        "TAILOR_TRAINING_ADDRESS": settings.training_address,
        "TAILOR_DATA_DIR": str(settings.data_dir / "work"),
        "TAILOR_PARALLELISM": settings.parallelism,
        "TAILOR_ROLLOUT_ENGINE": settings.rollout_engine,
    }


@dataclass(frozen=True)
class Process:
    """A process and its start time, so that another process that reuses its id is not mistaken for it."""

    pid: int
    started: str


class SubprocessLauncher(Launcher):
    """Starts the worker's command. `environment` is the worker's complete environment, except for its run."""

    def __init__(self, directory: Path, environment: Mapping[str, str], command: Sequence[str]) -> None:
        self._directory = directory
        self._environment = dict(environment)
        self._command = list(command)
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        directory.mkdir(parents=True, exist_ok=True)

    @classmethod
    def from_settings(cls, settings: Settings) -> "SubprocessLauncher":
        """A launcher of real workers."""
        environment = worker_environment(settings, os.environ)
        return cls(settings.data_dir / "workers", environment, worker_command(settings.processes))

    @property
    def ends_within(self) -> timedelta:
        return ENDS_WITHIN

    def start(self, job: Job) -> None:
        """Start a worker in its own session, so that it survives the service."""
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
        self._pid_file(job.name).write_text(f"{child.pid} {_start_time(child.pid)}", encoding="utf-8")

    def exit_code(self, run_id: str, epoch: int) -> int | None:
        name = f"{run_id}-{epoch}"
        child = self._children.get(name)
        if child is not None:
            return child.poll()
        if self._pid_file(name).exists() and self._process(name) is None:
            return self._read_exit_code(name)
        return None

    def waits(self, run_id: str, epoch: int) -> Failure | None:
        """Always None: a process starts at once."""
        del run_id, epoch
        return None

    def refusal(self, run_id: str, epoch: int) -> Failure | None:
        """Always None: this machine accepts every worker."""
        del run_id, epoch
        return None

    def stop(self, run_id: str, epoch: int) -> None:
        """Send SIGTERM, and SIGKILL after half a minute. Does not block."""
        name = f"{run_id}-{epoch}"
        process = self._process(name)
        if process is not None:
            _signal(process, signal.SIGTERM)
            threading.Thread(target=self._await_end, args=(name,), name="stop-worker", daemon=True).start()

    def stop_all(self) -> None:
        """Send SIGTERM to every worker of this machine and block until they have saved; SIGKILL after half a minute."""
        names = [path.stem for path in self._directory.glob("*.pid")]
        for process in filter(None, map(self._process, names)):
            _signal(process, signal.SIGTERM)
        for name in names:
            self._await_end(name)

    def _await_end(self, name: str) -> None:
        deadline = time.monotonic() + GRACE_SECONDS
        while (process := self._process(name)) is not None:
            if time.monotonic() > deadline:
                _signal(process, signal.SIGKILL)
            time.sleep(POLL_SECONDS)

    def _process(self, name: str) -> Process | None:
        """The worker's process, if it is alive."""
        # A child counts as alive until it is reaped: the kernel shows it as a zombie before its last thread has ended.
        child = self._children.get(name)
        if child is not None:
            return Process(child.pid, "") if child.poll() is None else None
        try:
            pid, _, started = self._pid_file(name).read_text(encoding="utf-8").partition(" ")
        except FileNotFoundError:
            return None
        process = Process(int(pid), started)
        return process if started and _start_time(process.pid) == started else None

    def _read_exit_code(self, name: str) -> int:
        """The exit code of a worker that is not a child of this process."""
        try:
            return int(self._exit_file(name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return UNKNOWN_EXIT

    def _exit_file(self, name: str) -> Path:
        return self._directory / f"{name}.exit"

    def _pid_file(self, name: str) -> Path:
        return self._directory / f"{name}.pid"


def _start_time(pid: int) -> str:
    """When a process was started, in the kernel's clock ticks; empty if it is not alive."""
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
