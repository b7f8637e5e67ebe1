"""Parsing in sandboxed child processes, which are reused and replaced when they exceed a limit."""

import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Self, cast

from services.ingestion.adapters.worker import UNCONFINED
from services.ingestion.domain import File, Insights, ParsedText, Rejected, RejectionReason
from services.ingestion.formats.budget import RemovedKind
from services.ingestion.formats.read import PARSERS
from services.ingestion.golden import check_insights
from services.ingestion.settings import Settings
from services.ingestion.spans import MAX_SPANS
from tailor.frames import bare_environment, read_frame, write_frame
from tailor.logging import describe_exit, get_logger
from tailor.values import Span, SpanKind

log = get_logger(__name__)

SLOW = "Parsing takes longer than is allowed. Simplify the file or publish it in parts."
BROKEN = "The file crashes its parser. Export it again."
MAX_FILES = 500
# The highest number that a page, sheet, slide or attachment can have.
MAX_NUMBER = 1_000_000
# The most characters that a parser can have removed: a file may be larger than the text that is allowed.
MAX_REMOVED = 2**31 - 1
# A small file that takes long is damaged or an attack, so processor time grows with the size.
BASE_CPU_SECONDS = 2
BYTES_PER_CPU_SECOND = 20 * 1024
# Bounds an answer: at most four bytes per character of text, and a little for everything else.
BYTES_PER_CHAR = 4
ANSWER_BYTES = 64 * 1024
GRACE_SECONDS = 1.0
# A child that had less than this share of its wall time on a processor was held up by the machine, not by its file.
STARVED_SHARE = 0.1
# The places of two fields in /proc/PID/stat, counted after the name.
USER_TICKS, SYSTEM_TICKS = 11, 12
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class ParseLimits:
    """Limits of one file. `cpu_seconds` applies to large files, small ones get less. `memory_bytes` limits the whole child process."""

    wall_seconds: float
    cpu_seconds: int
    memory_bytes: int
    max_chars: int = 6_000_000

    def cpu_seconds_for(self, size_bytes: int) -> int:
        """The processor time allowed for a file of this size."""
        return min(self.cpu_seconds, BASE_CPU_SECONDS + size_bytes // BYTES_PER_CPU_SECOND)


class ParserProcess:
    """One child process, started in an empty folder. Not thread-safe."""

    def __init__(self, limits: ParseLimits, folder: str) -> None:
        self._limits = limits
        self._files = 0
        # True if the last file exceeded its wall time although the machine gave the child little processor time.
        self.was_starved = False
        # One thread, because it may not start others.
        environment = bare_environment(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
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
        """True while the process is running and has parsed fewer than MAX_FILES files."""
        return self._process.poll() is None and self._files < MAX_FILES

    def parse(self, file: File) -> ParsedText:
        """Parse a file. Blocks, at most for the wall time.

        Raises Rejected: the child's own rejection, TIMEOUT if it was stopped, CORRUPT if it crashed.
        Raises RuntimeError if this machine cannot sandbox a child.
        """
        self._files += 1
        expired = threading.Event()
        started_at = self._used_seconds()

        def kill() -> None:
            self.was_starved = self._used_seconds() - started_at < STARVED_SHARE * self._limits.wall_seconds
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
            raise self._failure(expired.is_set())
        return self._read(frame)

    def close(self) -> None:
        """Kill the child and close its pipes."""
        self._end()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()

    def _used_seconds(self) -> float:
        """The processor time of the child so far; 0 if it has ended."""
        try:
            fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return 0.0
        return (int(fields[USER_TICKS]) + int(fields[SYSTEM_TICKS])) / TICKS_PER_SECOND

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

    def _failure(self, expired: bool) -> Rejected | RuntimeError:
        """Why there is no answer. Waits briefly for the exit status of a child that ends by itself."""
        try:
            code = self._process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            code = self._end()
        if code == UNCONFINED:
            return RuntimeError("this machine cannot sandbox a parsing worker: it needs Linux with seccomp")
        if expired or code == -signal.SIGPROF:
            return Rejected(RejectionReason.TIMEOUT, SLOW)
        log.warning("parser failed", error=describe_exit(code))
        return Rejected(RejectionReason.CORRUPT, BROKEN)

    def _read(self, frame: bytes) -> ParsedText:
        """Validate an answer. Nothing in it is trusted: a document may have taken over the child."""
        try:
            content = json.loads(frame)
            if "reason" in content:
                rejected = Rejected(
                    RejectionReason(content["reason"]), str(content["hint"]), _format(content["format"])
                )
            else:
                prompt = content["prompt"]
                text, spans = str(content["text"]), content["spans"]
                parsed = ParsedText(
                    text,
                    _format(content["format"]),
                    None if prompt is None else str(prompt),
                    tuple(_span(*span, text_length=len(text)) for span in spans[:MAX_SPANS]),
                    _insights(content.get("key_insights")),
                    _removed(content["removed"]),
                )
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            self._end()
            raise Rejected(RejectionReason.CORRUPT, BROKEN) from None
        if "is_last" in content:
            self._end()
        if "reason" in content:
            raise rejected
        return parsed


def _insights(content: object) -> Insights | None:
    """The key insights of a golden document, which may be empty; None for other documents. Raises Rejected (MALFORMED)."""
    return None if content is None else check_insights(content)


def _removed(content: Mapping[str, object]) -> dict[str, int]:
    """The removed characters by kind. Raises ValueError or AttributeError for anything else."""
    counts = {RemovedKind(kind).value: count for kind, count in content.items() if type(count) is int}
    if len(counts) < len(content) or not all(0 < count <= MAX_REMOVED for count in counts.values()):
        raise ValueError("the counts of what was removed must be positive integers")
    return counts


class ParserPool:
    """At most `size` child processes, started when first needed and replaced when they end. Thread-safe."""

    def __init__(self, limits: ParseLimits, size: int) -> None:
        self._limits = limits
        self._folder = tempfile.TemporaryDirectory(prefix="tailor-parse-")
        self._slots: queue.Queue[ParserProcess | None] = queue.Queue()
        for _ in range(size):
            self._slots.put(None)
        self._size = size

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        limits = ParseLimits(
            settings.parse_seconds, settings.parse_cpu_seconds, settings.parse_memory_bytes, settings.max_chars
        )
        return cls(limits, settings.parse_workers)

    def parse(self, file: File) -> ParsedText:
        """Parse a file in a free child, and wait for one if necessary. Raises like `ParserProcess.parse`.

        A child that got hardly any processor time says nothing about its file, which is parsed a second time.
        """
        worker = self._slots.get()
        try:
            worker = self._fit(worker)
            try:
                return worker.parse(file)
            except Rejected:
                was_starved, worker = worker.was_starved, self._fit(worker)
                if not was_starved:
                    raise
            return worker.parse(file)
        finally:
            self._slots.put(worker)

    def close(self) -> None:
        """Kill all children. Waits for files that are being parsed."""
        for _ in range(self._size):
            worker = self._slots.get()
            if worker is not None:
                worker.close()
        self._folder.cleanup()

    def _fit(self, worker: ParserProcess | None) -> ParserProcess:
        if worker is not None and worker.is_fit:
            return worker
        if worker is not None:
            worker.close()
        return ParserProcess(self._limits, self._folder.name)


def _span(kind: object, number: object, start: object, end: object, *, text_length: int) -> Span:
    """A span within the text. Raises ValueError or TypeError for anything else."""
    if type(number) is not int or type(start) is not int or type(end) is not int:
        raise ValueError("number, start and end must be integers")
    if not (0 < number <= MAX_NUMBER and 0 <= start < end <= text_length):
        raise ValueError("the span is not within the text")
    return Span(SpanKind(str(kind)), number, start, end)


def _format(value: object) -> str:
    if value != "" and value not in PARSERS:
        raise ValueError("unknown format")
    return str(value)
