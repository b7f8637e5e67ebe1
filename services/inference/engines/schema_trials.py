"""Schemas are tried in a child process with limits first: a small one can take gigabytes, and no step of it can be interrupted.

`python -m services.inference.engines.schema_trials FOLDER VOCABULARY` tries one schema after another with a base's tokenizer. A request is
a frame with the schema, an answer a frame with what is wrong with it, empty if nothing is.
"""

import hashlib
import os
import resource
import select
import signal
import subprocess
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, cast

from tailor.blocked_imports import hide_packages
from tailor.errors import Aborted, InvalidArgument, Reason, Unavailable
from tailor.frames import bare_environment, read_frame, write_frame
from tailor.logging import describe_exit, get_logger

log = get_logger(__name__)

# The costliest schemas of bytes, depth and counts within the limits of `validation.py` take half a second on a quick core.
CPU_SECONDS = 5.0
MEMORY_BYTES = 512 * 2**20
NO_MEMORY = 77
REMEMBERED = 1_024
LOOK_SECONDS = 0.05
MAX_FRAME = 2**20
TOO_COSTLY = "takes too much time or memory to enforce; use fewer patterns, and repeats with small counts"


def _never() -> bool:
    return False


class SchemaTrials:
    """Tries each schema once, and remembers what came of it by its digest. The child starts with the first schema. Thread-safe."""

    def __init__(self, folder: Path, vocabulary: int) -> None:
        self._command = [sys.executable, "-P", "-m", __name__, str(folder), str(vocabulary)]
        self._child: subprocess.Popen[bytes] | None = None
        self._known: OrderedDict[bytes, str] = OrderedDict()
        self._lock = threading.Lock()

    def check(self, schema: str, cancelled: Callable[[], bool] = _never) -> None:
        """Try a schema. Blocks, behind other new schemas, too.

        Raises InvalidArgument (INVALID_SCHEMA), Aborted (CANCELLED) if the caller goes away meanwhile, and Unavailable (CHILD_KILLED).
        """
        digest = hashlib.sha256(schema.encode()).digest()
        while not self._lock.acquire(timeout=LOOK_SECONDS):
            _raise_if(cancelled)
        try:
            if digest not in self._known:
                self._known[digest] = self._try(schema, cancelled)
            self._known.move_to_end(digest)
            if len(self._known) > REMEMBERED:
                self._known.popitem(last=False)
            wrong = self._known[digest]
        finally:
            self._lock.release()
        if wrong:
            raise InvalidArgument(
                Reason.INVALID_SCHEMA, f"json_schema: {wrong}.", field_violations={"json_schema": wrong}
            )

    def _try(self, schema: str, cancelled: Callable[[], bool]) -> str:
        """What is wrong with a schema; empty if nothing is."""
        for _ in range(2):
            if self._child is None:
                self._child = self._start()
            try:
                write_frame(cast(BinaryIO, self._child.stdin), schema.encode())
            except BrokenPipeError:
                self._end()
                continue
            answers = cast(BinaryIO, self._child.stdout)
            try:
                while not select.select([answers], [], [], LOOK_SECONDS)[0]:
                    _raise_if(cancelled)
            except Aborted:
                self._end()
                raise
            frame = read_frame(answers, MAX_FRAME)
            if frame is not None:
                return frame.decode()
            code = self._end()
            # The library aborts if it gets no memory.
            if code in (-signal.SIGPROF, -signal.SIGABRT, NO_MEMORY):
                return TOO_COSTLY
            # Something else ended it, such as the machine's lack of memory.
            log.warning("schema child ended", error=describe_exit(code))
        raise Unavailable(
            Reason.CHILD_KILLED, "The process that tries JSON schemas was killed. Is there enough memory?"
        )

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=bare_environment(HF_HUB_OFFLINE="1"),
            start_new_session=True,
        )

    def _end(self) -> int:
        """End the child, unless it has ended, and return its exit status: minus the signal that ended it."""
        child, self._child = self._child, None
        if child is None:
            return 0
        for stream in (child.stdin, child.stdout):
            cast(BinaryIO, stream).close()
        try:
            return child.wait(LOOK_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()
            return child.wait()


def _raise_if(cancelled: Callable[[], bool]) -> None:
    if cancelled():
        raise Aborted(Reason.CANCELLED, "The caller went away before the answer began.")


def main(folder: Path, vocabulary: int) -> None:
    """Try schemas until standard input ends."""
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    # What libraries print must not get between the answers.
    os.dup2(2, 1)
    hide_packages("torch", "sklearn", "scipy", "bitsandbytes")
    from transformers import AutoTokenizer

    from services.inference.engines.schemas import load_tokenizer, make_matcher

    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    # The kernel ends it before any other process when memory runs out.
    Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    known = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    tokenizer = load_tokenizer(known, vocabulary)
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    limit = pages * resource.getpagesize() + MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    while (frame := read_frame(requests, MAX_FRAME)) is not None:
        signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
        try:
            # A base whose tokenizer the library cannot read serves without schemas.
            wrong = "" if tokenizer and make_matcher(tokenizer, frame.decode()) else "the schema cannot be enforced"
        except InvalidArgument as error:
            wrong = error.field_violations["json_schema"]
        except MemoryError:
            os._exit(NO_MEMORY)
        signal.setitimer(signal.ITIMER_PROF, 0)
        write_frame(answers, wrong.encode())


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
