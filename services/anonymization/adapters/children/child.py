"""A process that loads the models once and forks one child for each place of a pool; a child reads one text after another.

`python -m services.anonymization.adapters.children.child SOCKET` gets an `Installation` as a frame over the inherited socket.
Then it is asked over the same socket to fork, with one end of a connection, or for the status of a child that has ended. Forking is
safe: it has one thread. All processes end when the service's end of their connection is closed, also when the service is killed.
"""

import gc
import os
import resource
import signal
import socket
import struct
import sys
import traceback
from collections import OrderedDict
from pathlib import Path

from services.anonymization.adapters.children.messages import (
    INSTALLATION,
    POLICY,
    RECOGNITION,
    REQUEST,
    Installation,
    Operation,
    ReadRequest,
    encode_error,
)
from services.anonymization.adapters.detectors import MAKERS
from services.anonymization.domain import Policy
from services.anonymization.recognise.analysis import Recognition
from services.anonymization.recognise.caches import clear_caches
from services.anonymization.recognise.detectors.definition import DetectorKind
from services.anonymization.recognise.languages.detection import LanguageDetector
from services.anonymization.recognise.languages.loading import load_section_analyzer
from services.anonymization.recognise.languages.section_analyzer import SectionAnalyzer
from services.anonymization.recognise.languages.sections import SectionDetector
from tailor.errors import InvalidArgument, Reason, TailorError
from tailor.frames import read_frame, write_frame

MAX_REQUEST = 64 * 2**20
NUMBER = struct.Struct(">i")
FORK, WAIT = b"f", b"w"
# Models of these kinds start threads or connections, which a fork would break; each child loads them for itself.
UNFORKABLE = (DetectorKind.TRANSFORMERS, DetectorKind.GLINER, DetectorKind.REMOTE)
# A policy that is dropped is built again in a tenth of a second.
MAX_POLICIES = 4
PAGE = resource.getpagesize()


class Analyzers:
    """The analyzers of the policies that were asked for last."""

    def __init__(self, installation: Installation) -> None:
        self._installation = installation
        self._first: SectionAnalyzer | None = None
        self._known: OrderedDict[tuple[bytes, int, bool], SectionAnalyzer] = OrderedDict()
        self.sections = SectionDetector(LanguageDetector(), installation.languages)

    def load(self) -> SectionAnalyzer:
        """The models of the first language, once."""
        if self._first is None:
            it = self._installation
            self._first = load_section_analyzer(
                it.detectors, it.policy, LanguageDetector(), languages=it.languages, phone_regions=it.phone_regions,
                makers=MAKERS, is_held=it.is_held,
            )  # fmt: skip
        return self._first

    def find(self, policy: Policy, cache_size: int, *, accepts_all: bool) -> SectionAnalyzer:
        """The analyzer of a policy, with its cache of paragraphs."""
        # Not its digest, which the policy for prompts shares with the one that it is made from.
        key = (POLICY.dump_json(policy), cache_size, accepts_all)
        if key not in self._known:
            analyzer = self.load().with_policy(policy, cache_size)
            self._known[key] = analyzer.accepting_all() if accepts_all else analyzer
        self._known.move_to_end(key)
        while len(self._known) > MAX_POLICIES:
            self._known.popitem(last=False)
        return self._known[key]


def answer(analyzers: Analyzers, request: ReadRequest) -> bytes:
    """Read the request's text."""
    question = request.question
    try:
        if request.operation is Operation.SECTIONS:
            return RECOGNITION.dump_json(
                Recognition(sections=tuple(analyzers.sections.sections(question.text, question.ends)))
            )
        analyzer = analyzers.find(request.policy, request.cache_size, accepts_all=request.accepts_all)
        if request.operation is Operation.ANALYZE:
            return RECOGNITION.dump_json(analyzer.analyze(question.text, question.ends))
        return RECOGNITION.dump_json(analyzer.recognise(question))
    except TailorError as error:
        return encode_error(error)
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - a defect that one text meets is reported with that text
        return encode_error(_describe_defect(error))
    finally:
        if not request.cache_size:
            clear_caches()


def _describe_defect(error: Exception) -> InvalidArgument:
    """Where it is, without the exception's text, which may quote what was read."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    place = f"{type(error).__name__} in {Path(frame.filename).name}, line {frame.lineno}"
    return InvalidArgument(Reason.CHILD_FAILED, f"Reading the text failed: {place}. Report this defect.")


def serve(connection: socket.socket, analyzers: Analyzers) -> None:
    """Answer requests until the other end is closed. A text that takes too much ends the process: by SIGPROF, or with `NO_MEMORY`."""
    with connection, connection.makefile("rb") as requests, connection.makefile("wb") as answers:
        while (frame := read_frame(requests, MAX_REQUEST)) is not None:
            request = REQUEST.validate_json(frame)
            _limit(request.cpu_seconds, request.memory_bytes)
            try:
                content = answer(analyzers, request)
            except MemoryError:
                os._exit(NO_MEMORY)
            _limit(0, 0)
            write_frame(answers, content)


NO_MEMORY = 77


def _limit(cpu_seconds: float, memory_bytes: int) -> None:
    """Allow so much processor time, and so much memory beyond what is mapped now; 0 allows any."""
    signal.setitimer(signal.ITIMER_PROF, cpu_seconds)
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    mapped = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * PAGE
    resource.setrlimit(resource.RLIMIT_AS, (mapped + memory_bytes if memory_bytes else hard, hard))


def _become_child(connection: int, analyzers: Analyzers) -> None:
    """In a fork: serve, and never return."""
    code = 1
    try:
        # The kernel ends it before any other process when memory runs out.
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
        serve(socket.socket(fileno=connection), analyzers)
        code = 0
    finally:
        # Not an exception's text, which may quote what was read; and no cleaning up of what belongs to the parent.
        os._exit(code)


def main(control: socket.socket) -> None:
    """Load, say so with an empty frame or the error, then fork and wait for children until the socket is closed."""
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    analyzers = _load(control)
    if analyzers is None:
        return
    # What was loaded is never collected, so that its pages stay shared with the children.
    gc.collect()
    gc.freeze()
    while True:
        message, descriptors, *_ = socket.recv_fds(control, 1 + NUMBER.size, 1)
        if not message:
            return
        if message[:1] == WAIT:
            control.sendall(NUMBER.pack(_wait(NUMBER.unpack(message[1:])[0])))
            continue
        process_id = os.fork()
        if not process_id:
            control.close()
            _become_child(descriptors[0], analyzers)
        os.close(descriptors[0])
        control.sendall(NUMBER.pack(process_id))


def _wait(process_id: int) -> int:
    """The exit status of a child; as if it had been killed for one of an earlier process."""
    try:
        return os.waitstatus_to_exitcode(os.waitpid(process_id, 0)[1])
    except ChildProcessError:
        return -signal.SIGKILL


def _load(control: socket.socket) -> Analyzers | None:
    """The models that children share, once the service has said which; None if there are none to share."""
    with control.makefile("rb") as requests, control.makefile("wb") as answers:
        frame = read_frame(requests, MAX_REQUEST)
        if frame is None:
            return None
        installation = INSTALLATION.validate_json(frame)
        analyzers = Analyzers(installation)
        try:
            if not any(detector.kind in UNFORKABLE for detector in installation.detectors):
                analyzers.load()
        except TailorError as error:
            write_frame(answers, encode_error(error))
            return None
        write_frame(answers, b"")
    return analyzers


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])))
