"""Parsing in locked-in child processes that are kept warm, and replaced when they overstep a limit."""

import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass
from typing import BinaryIO, cast

from services.ingestion.adapters.formats.read import PARSERS
from services.ingestion.adapters.worker import UNCONFINED, read_frame, write_frame
from services.ingestion.domain import File, Parsed, Rejected, RejectionReason
from services.ingestion.spans import MAX_SPANS, Span, SpanKind

SLOW = "Parsing took longer than is granted; simplify the file or publish it in parts."
BROKEN = "The file broke its parser down; export it again."
MAX_FILES = 500
# No page, sheet, slide or attachment has a higher number.
MAX_NUMBER = 1_000_000
# A small file that takes long is an attack or damaged: processor time grows with the size.
BASE_CPU_SECONDS = 2
BYTES_PER_CPU_SECOND = 20 * 1024
# A character takes at most four bytes in an answer, which has little more than text.
BYTES_PER_CHAR = 4
ANSWER_BYTES = 64 * 1024
GRACE_SECONDS = 1.0


@dataclass(frozen=True)
class Limits:
    """What one file may take, in seconds, bytes and characters of its text; memory holds for the worker as a whole. `cpu_seconds` is
    for large files; a small one gets less."""

    wall_seconds: float
    cpu_seconds: int
    memory_bytes: int
    max_chars: int = 6_000_000

    def cpu_seconds_for(self, size_bytes: int) -> int:
        """The processor time that a file of this size is granted."""
        return min(self.cpu_seconds, BASE_CPU_SECONDS + size_bytes // BYTES_PER_CPU_SECOND)


class Worker:
    """One child process, started in a folder that holds nothing. Not thread-safe."""

    def __init__(self, limits: Limits, folder: str) -> None:
        self._limits = limits
        self._files = 0
        # No secrets: the child gets nothing of our environment but where to find code. One thread, since it may start no other.
        environment = {
            "PATH": os.environ.get("PATH", ""),
            "PYTHONPATH": os.pathsep.join(os.path.abspath(path) for path in sys.path if path),  # noqa: PTH100 - no links are followed
            "LC_ALL": "C.UTF-8",
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
        }
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "services.ingestion.adapters.worker", str(limits.memory_bytes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            cwd=folder,
            start_new_session=True,
        )

    @property
    def is_fit(self) -> bool:
        """True while it lives and has not grown old."""
        return self._process.poll() is None and self._files < MAX_FILES

    def parse(self, file: File) -> Parsed:
        """The file's text; Rejected with TIMEOUT where the child was stopped, CORRUPT where it broke down. RuntimeError where this machine
        cannot lock a child in."""
        self._files += 1
        expired = threading.Event()

        def kill() -> None:
            expired.set()
            self._process.kill()

        timer = threading.Timer(self._limits.wall_seconds, kill)
        timer.daemon = True
        timer.start()
        try:
            frame = self._exchange(file)
        finally:
            timer.cancel()
        if expired.is_set():
            self._end()
        if frame is None:
            raise self._ended(expired.is_set())
        return self._read(frame)

    def close(self) -> None:
        """End the child."""
        self._end()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()

    def _end(self) -> int:
        if self._process.poll() is None:
            self._process.kill()
        return self._process.wait()

    def _exchange(self, file: File) -> bytes | None:
        requests, answers = cast(BinaryIO, self._process.stdin), cast(BinaryIO, self._process.stdout)
        request = {
            "name": file.name,
            "content_type": file.content_type,
            "cpu_seconds": self._limits.cpu_seconds_for(len(file.data)),
            "max_chars": self._limits.max_chars,
        }
        try:
            write_frame(requests, json.dumps(request).encode())
            write_frame(requests, file.data)
        except BrokenPipeError:
            return None
        return read_frame(answers, self._limits.max_chars * BYTES_PER_CHAR + ANSWER_BYTES)

    def _ended(self, expired: bool) -> Rejected | RuntimeError:
        """Why there is no answer. A child that ends by itself is given the time to say so by its status."""
        try:
            code = self._process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            code = self._end()
        if code == UNCONFINED:
            return RuntimeError("a parsing worker cannot be locked in on this machine: it needs Linux with seccomp")
        if expired or code == -signal.SIGXCPU:
            return Rejected(RejectionReason.TIMEOUT, SLOW)
        return Rejected(RejectionReason.CORRUPT, BROKEN)

    def _read(self, frame: bytes) -> Parsed:
        """An answer, of which nothing is taken for granted: a document may have taken the child over."""
        try:
            content = json.loads(frame)
            if "reason" in content:
                rejected = Rejected(
                    RejectionReason(content["reason"]), str(content["hint"]), _format(content["format"])
                )
            else:
                prompt = content["prompt"]
                text, spans = str(content["text"]), content["spans"]
                parsed = Parsed(
                    text,
                    _format(content["format"]),
                    None if prompt is None else str(prompt),
                    tuple(_span(*each, most=len(text)) for each in spans[:MAX_SPANS]),
                )
        except (ValueError, KeyError, TypeError, RecursionError):
            self._end()
            raise Rejected(RejectionReason.CORRUPT, BROKEN) from None
        if "is_last" in content:
            self._end()
        if "reason" in content:
            raise rejected
        return parsed


class ParserPool:
    """At most so many children at once; they start when first needed, and one that ended is replaced at once. Thread-safe."""

    def __init__(self, limits: Limits, size: int) -> None:
        self._limits = limits
        self._folder = tempfile.TemporaryDirectory(prefix="tailor-parse-")
        self._slots: queue.Queue[Worker | None] = queue.Queue()
        for _ in range(size):
            self._slots.put(None)
        self._size = size

    def parse(self, file: File) -> Parsed:
        """The file's text; raises Rejected. Waits for a free child. RuntimeError where this machine cannot lock one in."""
        worker = self._slots.get()
        try:
            worker = self._fit(worker)
            try:
                return worker.parse(file)
            except Rejected:
                worker = self._fit(worker)
                raise
        finally:
            self._slots.put(worker)

    def close(self) -> None:
        """End all children."""
        for _ in range(self._size):
            worker = self._slots.get()
            if worker is not None:
                worker.close()
        self._folder.cleanup()

    def _fit(self, worker: Worker | None) -> Worker:
        if worker is not None and worker.is_fit:
            return worker
        if worker is not None:
            worker.close()
        return Worker(self._limits, self._folder.name)


def _span(kind: object, number: object, start: object, end: object, *, most: int) -> Span:
    """A span of a text of so many characters; ValueError or TypeError for anything else."""
    if type(number) is not int or type(start) is not int or type(end) is not int:
        raise ValueError("no numbers")
    if not (0 < number <= MAX_NUMBER and 0 <= start < end <= most):
        raise ValueError("no span of the text")
    return Span(SpanKind(str(kind)), number, start, end)


def _format(value: object) -> str:
    if value != "" and value not in PARSERS:
        raise ValueError("no format")
    return str(value)
