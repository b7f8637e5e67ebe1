"""Parsing in child processes that are kept warm, and replaced when they overstep a limit."""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass
from typing import BinaryIO, cast

from services.ingestion.adapters.worker import read_frame, write_frame
from services.ingestion.domain import File, Parsed, Reason, Rejected

SLOW = "Parsing took longer than is granted; simplify the file or publish it in parts."
MAX_FILES = 500


@dataclass(frozen=True)
class Limits:
    """What one file may take, in seconds and bytes; memory holds for the worker as a whole."""

    wall_seconds: float
    cpu_seconds: int
    memory_bytes: int


class Worker:
    """One child process. Not thread-safe."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._files = 0
        # No secrets: the child gets nothing of our environment but where to find code.
        environment = {
            "PATH": os.environ.get("PATH", ""),
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            "LC_ALL": "C.UTF-8",
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "services.ingestion.adapters.worker", str(limits.memory_bytes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,
        )

    @property
    def is_fit(self) -> bool:
        """True while it lives and has not grown old."""
        return self._process.poll() is None and self._files < MAX_FILES

    def parse(self, file: File) -> Parsed:
        """The file's text; Rejected with TIMEOUT where the child was stopped, CORRUPT where it broke down."""
        self._files += 1
        expired = threading.Event()

        def kill() -> None:
            expired.set()
            self._process.kill()

        timer = threading.Timer(self._limits.wall_seconds, kill)
        timer.daemon = True
        timer.start()
        try:
            content = self._exchange(file)
        finally:
            timer.cancel()
        if content is None:
            code = self._process.wait()
            if expired.is_set() or code == -signal.SIGXCPU:
                raise Rejected(Reason.TIMEOUT, SLOW)
            raise Rejected(Reason.CORRUPT, "The file broke its parser down; export it again.")
        if "reason" in content:
            raise Rejected(Reason(content["reason"]), content["hint"], content["format"])
        return Parsed(content["text"], content["format"], content["prompt"])

    def close(self) -> None:
        """End the child."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()

    def _exchange(self, file: File) -> dict[str, str] | None:
        requests, answers = cast(BinaryIO, self._process.stdin), cast(BinaryIO, self._process.stdout)
        request = {"name": file.name, "content_type": file.content_type, "cpu_seconds": self._limits.cpu_seconds}
        try:
            write_frame(requests, json.dumps(request).encode())
            write_frame(requests, file.data)
        except BrokenPipeError:
            return None
        frame = read_frame(answers)
        return None if frame is None else dict(json.loads(frame))


class ParserPool:
    """At most so many children at once; they start when first needed. Thread-safe."""

    def __init__(self, limits: Limits, size: int) -> None:
        self._limits = limits
        self._slots: queue.Queue[Worker | None] = queue.Queue()
        for _ in range(size):
            self._slots.put(None)
        self._size = size

    def parse(self, file: File) -> Parsed:
        """The file's text; raises Rejected. Waits for a free child."""
        worker = self._slots.get()
        try:
            if worker is None or not worker.is_fit:
                if worker is not None:
                    worker.close()
                worker = Worker(self._limits)
            return worker.parse(file)
        finally:
            self._slots.put(worker)

    def close(self) -> None:
        """End all children."""
        for _ in range(self._size):
            worker = self._slots.get()
            if worker is not None:
                worker.close()
