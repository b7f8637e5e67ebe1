"""Processes of a bench: started, awaited, killed and ended, with all that they start."""

import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tailor.local import processes

READY_SECONDS = 300.0
STOP_SECONDS = 30.0
TAIL = 2000


@dataclass
class Child:
    """A process in its own group. `ready` is the page that answers 200 once it is ready; `piped` opens its standard input and output."""

    command: Sequence[str]
    environment: Mapping[str, str] = field(repr=False)
    log: Path
    ready: str
    piped: bool = False

    def begin(self) -> "Child":
        """Start it; after its end it may be started again."""
        pipe = subprocess.PIPE if self.piped else None
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                env=dict(self.environment),
                cwd=self.log.parent,
                stdin=pipe or subprocess.DEVNULL,
                stdout=pipe or log,
                stderr=log,
                text=True,
                start_new_session=True,
            )
        return self

    def wait_ready(self) -> "Child":
        """Block until it is ready; SystemExit where it ends before or takes too long."""
        deadline = time.monotonic() + READY_SECONDS
        while not _answers(self.ready):
            if self.process.poll() is not None or time.monotonic() > deadline:
                end = self.log.read_text(encoding="utf-8", errors="replace")[-TAIL:]
                raise SystemExit(f"{' '.join(self.command[:3])} is not ready; the end of its log:\n{end}")
            time.sleep(0.2)
        return self

    def ask(self, line: str) -> str:
        """Write a line to its input and read one of its output; raises SystemExit if it has ended."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise SystemExit(f"{' '.join(self.command[:3])} ended; see {self.log}")
        return answer

    def kill(self) -> None:
        """`kill -9` of this process only; its children have to end by themselves."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(STOP_SECONDS)

    def end(self) -> None:
        """Stop it, and what is left of its group; nothing happens where it was never started."""
        if not hasattr(self, "process"):
            return
        self.process.terminate()
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(STOP_SECONDS)
        processes.kill(self.group())

    def group(self) -> list[int]:
        """The numbers of the processes of its group that run."""
        return processes.group_members(self.process.pid)

    def cpu_seconds(self) -> float:
        """CPU seconds of the processes that run in its group."""
        return sum(map(cpu_seconds, self.group()))


def cpu_seconds(pid: int) -> float:
    """CPU seconds of a process so far, and of its children that have ended; 0 if it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _answers(address: str) -> bool:
    try:
        # The address of our own child.
        with urllib.request.urlopen(address, timeout=2):  # nosec B310
            return True
    except (urllib.error.URLError, OSError):
        return False
