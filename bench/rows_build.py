"""Builds datasets in a separate process, and measures its memory and that of its workers.

`python -m bench.rows_build STORE` reads commands from its input, a line each: `prepare` or `build`. It answers each with a line of JSON.
The database's address is in the environment, as that of the service is.
"""

import json
import os
import resource
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from bench.children import Child

if TYPE_CHECKING:
    from bench.rows_corpus import BenchCorpus

URL = "TAILOR_DATABASE_URL"
SAMPLE_SECONDS = 0.1
ROOT = Path(__file__).parents[1]


class PeakMemory:
    """Samples the resident memory of a child's process group. Pages that processes share count once per process."""

    def __init__(self, child: Child) -> None:
        self._child = child
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self.megabytes = 0.0

    def __enter__(self) -> "PeakMemory":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._stop.wait(SAMPLE_SECONDS):
            self.megabytes = max(self.megabytes, sum(map(resident_bytes, self._child.group())) / 2**20)


def resident_bytes(pid: int) -> int:
    """The resident memory of a process; 0 if it is gone."""
    with suppress(OSError, IndexError):
        return int(Path(f"/proc/{pid}/statm").read_text(encoding="utf-8").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


class Builder:
    """The process that builds. Ends with the block."""

    def __init__(self, store: Path, url: str, log: Path) -> None:
        command = (sys.executable, "-m", "bench.rows_build", str(store))
        environment = {**os.environ, "PYTHONPATH": str(ROOT), URL: url}
        self._child = Child(command, environment, log, "", piped=True)

    def __enter__(self) -> "Builder":
        self._child.begin()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._child.end()

    def run(self, command: str) -> dict[str, Any]:
        """Run a command. Returns its answer, with `seconds`, `cpu_seconds` and `peak_rss_mb`."""
        with PeakMemory(self._child) as memory:
            answer: dict[str, Any] = json.loads(self._child.ask(command))
        return {**answer, "peak_rss_mb": round(memory.megabytes)}


def run(corpus: "BenchCorpus", command: str) -> Mapping[str, Any]:
    """Run a command in this process."""
    from bench.rows_corpus import SPECIALIST
    from services.synthetic import handlers

    started, used = time.monotonic(), cpu_seconds()
    answer: dict[str, Any] = {}
    if command == "prepare":
        corpus.app.preparer.prepare(SPECIALIST.selection)
    else:
        result = handlers.build_dataset(corpus.app, SPECIALIST.name, "")
        answer = {**asdict(result.dataset), "manifest": result.dataset.manifest.key, "created": result.created}
    seconds = {"seconds": time.monotonic() - started, "cpu_seconds": cpu_seconds() - used}
    return answer | {name: round(value, 2) for name, value in seconds.items()}


def cpu_seconds() -> float:
    """The time that this process and its workers that have ended ran, without the database and the store."""
    parts = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(part.ru_utime + part.ru_stime for part in parts)


def main() -> None:
    """Answer commands until the input ends."""
    # Not at the top, because the processes that make rows import this module.
    from bench.rows_corpus import BenchCorpus

    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    # What else is printed goes to the log.
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    corpus = BenchCorpus.connect(Path(sys.argv[1]), os.environ[URL])
    for line in sys.stdin:
        print(json.dumps(run(corpus, line.strip()), default=str), file=answers, flush=True)


if __name__ == "__main__":
    main()
