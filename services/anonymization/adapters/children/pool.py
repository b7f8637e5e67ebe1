"""A pool of reading children. One that exceeds a text's limits is ended and replaced; the texts of others wait for a place at most."""

import os
import queue
import select
import signal
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass
from typing import BinaryIO, cast

from services.anonymization.adapters.children.child import FORK, NO_MEMORY, NUMBER, WAIT
from services.anonymization.adapters.children.messages import INSTALLATION, REQUEST, Installation, ReadRequest, decode
from services.anonymization.recognise import budget
from services.anonymization.recognise.analysis import Recognition
from tailor.errors import Reason, ResourceExhausted, Unavailable
from tailor.frames import bare_environment, read_frame, write_frame
from tailor.logging import describe_exit, get_logger

log = get_logger(__name__)

LOOK_SECONDS = 0.05
MAX_ANSWER = 256 * 2**20
TOO_EXPENSIVE = (
    "Finding personal values in the text took more processor time or memory than a text of its length may. "
    "Look for long repeated parts, and send it in smaller parts."
)


class EndedError(Exception):
    """A child ended before it answered. `by_limit`: it exceeded a limit of its text."""

    def __init__(self, *, by_limit: bool) -> None:
        super().__init__("a reading child ended before it answered")
        self.by_limit = by_limit


@dataclass
class ReadingChild:
    """The service's end of a connection with a child."""

    process_id: int
    connection: socket.socket
    answers: BinaryIO

    def close(self) -> None:
        """Close the connection, upon which the child ends if it waits."""
        self.answers.close()
        self.connection.close()


class Parent:
    """The process that forks children. Started when first needed, and again if it has ended. Thread-safe."""

    def __init__(self, installation: Installation) -> None:
        self._installation = installation
        self._lock = threading.Lock()
        self._control: socket.socket | None = None

    def fork(self) -> ReadingChild:
        """A new child. Loading the models takes seconds the first time. Raises what loading them raises."""
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                process_id = self._ask(FORK, theirs.fileno())
        except BaseException:
            ours.close()
            raise
        return ReadingChild(process_id, ours, cast(BinaryIO, ours.makefile("rb")))

    def wait(self, child: ReadingChild) -> int:
        """End a child, and return its exit status: minus the signal that ended it."""
        child.close()
        return self._ask(WAIT + NUMBER.pack(child.process_id))

    def close(self) -> None:
        """Close the connection, upon which the process ends."""
        with self._lock:
            self._end()

    def _ask(self, message: bytes, descriptor: int | None = None) -> int:
        with self._lock:
            for is_last in (False, True):
                control = self._control or self._start()
                try:
                    if descriptor is None:
                        control.sendall(message)
                    else:
                        socket.send_fds(control, [message], [descriptor])
                    if len(data := control.recv(NUMBER.size, socket.MSG_WAITALL)) == NUMBER.size:
                        return int(NUMBER.unpack(data)[0])
                except OSError:
                    pass
                self._end()
                if descriptor is None:
                    # Its children ended with it, or end with their connections.
                    return -signal.SIGKILL
                if is_last:
                    break
        raise Unavailable(
            Reason.BARRIER_UNAVAILABLE, "The process that reads texts ends at once; look at its host's memory."
        )

    def _start(self) -> socket.socket:
        ours, theirs = socket.socketpair()
        with theirs:
            # One thread, because it forks.
            environment = bare_environment(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
            subprocess.Popen(
                [sys.executable, "-P", "-m", "services.anonymization.adapters.children.child", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=environment,
                start_new_session=True,
            )
        with ours.makefile("rb") as answers, ours.makefile("wb") as requests:
            write_frame(requests, INSTALLATION.dump_json(self._installation))
            loaded = read_frame(answers, MAX_ANSWER)
        if loaded is None:
            ours.close()
            raise Unavailable(
                Reason.BARRIER_UNAVAILABLE, "The process that reads texts does not start; look at its host's memory."
            )
        if loaded:
            ours.close()
            decode(loaded)
        self._control = ours
        return ours

    def _end(self) -> None:
        if self._control is not None:
            self._control.close()
            self._control = None


class Pool:
    """At most `size` children, forked when first needed. Thread-safe."""

    def __init__(self, parent: Parent, size: int) -> None:
        self._parent = parent
        self._places: queue.Queue[ReadingChild | None] = queue.Queue()
        for _ in range(size):
            self._places.put(None)

    def ask(self, request: ReadRequest) -> Recognition:
        """Have a text read. Waits for a free child.

        Raises ResourceExhausted (TOO_EXPENSIVE) if it takes more than it may, DeadlineExceeded (TEXT_TOO_SLOW) when the current
        `budget.limit` is spent or its caller has gone, and what the child reports. A child that ends for another reason, such as for lack
        of memory of the whole machine, says nothing about its text, which is read once more.
        """
        try:
            return self._ask(request)
        except EndedError as ended:
            if ended.by_limit:
                raise ResourceExhausted(Reason.TOO_EXPENSIVE, TOO_EXPENSIVE) from None
        try:
            return self._ask(request)
        except EndedError:
            raise ResourceExhausted(Reason.TOO_EXPENSIVE, TOO_EXPENSIVE) from None

    def _ask(self, request: ReadRequest) -> Recognition:
        place = self._take()
        child: ReadingChild | None = None
        try:
            child = place or self._parent.fork()
            frame = _exchange(child, request)
        except BaseException:
            if child is not None:
                self._kill(child)
            self._places.put(None)
            raise
        if frame is None:
            self._places.put(None)
            code = self._parent.wait(child)
            by_limit = code in (-signal.SIGPROF, NO_MEMORY)
            log.warning("reading child ended", by_limit=by_limit, error=describe_exit(code))
            raise EndedError(by_limit=by_limit)
        self._places.put(child)
        return decode(frame)

    def _take(self) -> ReadingChild | None:
        while True:
            budget.check()
            try:
                return self._places.get(timeout=LOOK_SECONDS)
            except queue.Empty:
                continue

    def _kill(self, child: ReadingChild) -> None:
        with suppress(ProcessLookupError):
            os.kill(child.process_id, signal.SIGKILL)
        self._parent.wait(child)


def _exchange(child: ReadingChild, request: ReadRequest) -> bytes | None:
    """The child's answer, or None if it has ended. Raises DeadlineExceeded (TEXT_TOO_SLOW)."""
    try:
        with child.connection.makefile("wb") as requests:
            write_frame(requests, REQUEST.dump_json(request))
    except OSError:
        return None
    while not select.select([child.connection], [], [], LOOK_SECONDS)[0]:
        budget.check()
    try:
        return read_frame(child.answers, MAX_ANSWER)
    except OSError:
        return None
