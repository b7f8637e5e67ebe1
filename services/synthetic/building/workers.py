"""Runs the work of a build: in this process, or in at most two others that end with it."""

import gc
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import connection
from typing import TypeVar

from services.synthetic.building.segments import Context
from services.synthetic.ports import Workers
from tailor.errors import Reason, TailorError, Unavailable
from tailor.hardware import peak_resident_bytes

T = TypeVar("T")

MAX_PROCESSES = 2
# Starting processes takes longer than making the rows of fewer documents.
MIN_DOCUMENTS = 200
# Memory that a worker frees goes back to the system: a segment's tables and strings take several times what stays after it.
ALLOCATION = {
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": "1000000",
    "MALLOC_TRIM_THRESHOLD_": "1000000",
}

_context: Context | None = None


class InlineWorkers(Workers):
    """Works in this thread when the result is asked for."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def submit(self, function: Callable[..., T], *arguments: object) -> Callable[[], T]:
        return lambda: function(self._context, *arguments)


class ProcessWorkers(Workers):
    """Works in other processes, which get the context once."""

    def __init__(self, pool: ProcessPoolExecutor) -> None:
        self._pool = pool

    def submit(self, function: Callable[..., T], *arguments: object) -> Callable[[], T]:
        try:
            future: Future[T | _Failure] = self._pool.submit(_run, function, arguments)
        except BrokenProcessPool:
            raise _lost() from None
        return lambda: _result(future)


@contextmanager
def start_workers(context: Context, documents: int) -> Iterator[Workers]:
    """Workers for a build of this many documents."""
    if documents < MIN_DOCUMENTS:
        yield InlineWorkers(context)
        return
    # These are read when a process starts, so they are set in this one, which the others inherit.
    for name, value in ALLOCATION.items():
        os.environ.setdefault(name, value)
    processes = min(MAX_PROCESSES, os.cpu_count() or 1)
    method = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, method, initializer=_start, initargs=(context,)) as pool:
        try:
            yield ProcessWorkers(pool)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def peak_memory_mb() -> int:
    """The most memory that this process and its running workers can have used at once: the sum of their peaks. 0 if it is unknown."""
    processes = [os.getpid(), *(child.pid for child in multiprocessing.active_children() if child.pid)]
    return sum(map(peak_resident_bytes, processes)) // 2**20


def _start(context: Context) -> None:
    global _context  # noqa: PLW0603 - the state of a worker process
    _context = context
    os.nice(5)
    # There are as many workers as cores that a build may use: threads of the tokenizer would only take turns.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    # Rows are many objects without cycles: collecting while they are made takes a tenth of the time.
    gc.freeze()
    gc.disable()
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    """A killed service leaves no workers behind."""
    connection.wait([sentinel])
    os._exit(1)


@dataclass(frozen=True)
class _Failure:
    """An error of a worker: the errors themselves cannot be pickled."""

    kind: type[TailorError]
    reason: Reason
    message: str


def _run(function: Callable[..., T], arguments: tuple[object, ...]) -> "T | _Failure":
    try:
        return function(_context, *arguments)
    except TailorError as error:
        return _Failure(type(error), error.reason, error.message)
    finally:
        # Of the objects that this work made, so that it need not go through all that are remembered.
        gc.collect(0)


def _result(future: "Future[T | _Failure]") -> T:
    try:
        result = future.result()
    except BrokenProcessPool:
        raise _lost() from None
    if isinstance(result, _Failure):
        raise result.kind(result.reason, result.message)
    return result


def _lost() -> Unavailable:
    return Unavailable(
        Reason.BUILD_WORKER_LOST, "A process that makes rows was killed, probably for its memory. Retry."
    )
