"""A worker's reports and heartbeats to the training service, sent from a thread so that a lost service never stalls the training."""

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, MutableMapping
from typing import Any

from services.training.settings import WorkerSettings
from tailor.api.events.v1 import models_pb2
from tailor.api.training.v1 import training_pb2 as pb
from tailor.api.training.v1 import training_pb2_grpc
from tailor.errors import Aborted, Reason, TailorError
from tailor.logging import get_logger
from tailor.rpc.channel import service_channel, wire_errors

log = get_logger(__name__)

HEARTBEAT_SECONDS = 5.0
LINES_SECONDS = 1.0
CALL_SECONDS = 10.0
LOST_SECONDS = 120.0
MAX_WAITING = 1000
MAX_LINES = 100
MAX_CHARACTERS = 1000
LEVELS = {"warning": "warning", "error": "error", "critical": "error"}
# Fields of a log event that every line has, and tracebacks, which may contain values.
UNSENT = frozenset({"service", "module", "level", "timestamp", "event", "exception", "exc_info", "stack_info"})

# Sends one report; True if the worker must stop. Raises TailorError.
Send = Callable[[pb.ReportProgressRequest], bool]


class Superseded(Aborted):
    """Another worker holds the run. Reporting again cannot help."""

    retryable = False


def connect(settings: WorkerSettings) -> Send:
    """The training service over gRPC."""
    channel = service_channel(settings, "training", settings.training_address, service="training-worker")
    stub = training_pb2_grpc.TrainingServiceStub(channel)

    def send(request: pb.ReportProgressRequest) -> bool:
        with wire_errors("training"):
            return stub.ReportProgress(request, timeout=CALL_SECONDS).stop

    return send


class LogLines:
    """A structlog processor that keeps the newest lines of the log until they are sent. Thread-safe."""

    def __init__(self) -> None:
        self._waiting: deque[pb.LogLine] = deque(maxlen=MAX_WAITING)

    def __call__(self, _: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        """Keep the event as a line, and pass it on."""
        fields = [f"{name}={value}" for name, value in event.items() if name not in UNSENT]
        message = " ".join([str(event["event"]), *fields])[:MAX_CHARACTERS]
        line = pb.LogLine(level=LEVELS.get(str(event.get("level")), "info"), message=message)
        line.create_time.GetCurrentTime()
        self._waiting.append(line)
        return event

    def take(self) -> list[pb.LogLine]:
        """Remove and return the oldest lines, at most 100."""
        return [self._waiting.popleft() for _ in range(min(MAX_LINES, len(self._waiting)))]


class Reporter:
    """Reports for one worker from a thread, including its log.

    `must_stop` is True once the run was cancelled or another worker holds its lease. `lost` is True once the service has not answered for
    two minutes.
    """

    def __init__(
        self,
        send: Send,
        run_id: str,
        epoch: int,
        lines: LogLines | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._send_report = send
        self._run_id = run_id
        self._epoch = epoch
        self._lines = lines or LogLines()
        self._clock = clock
        self._last_contact = self._lines_sent = clock()
        self._waiting: queue.Queue[models_pb2.RunProgressed | None] = queue.Queue(MAX_WAITING)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="reporter", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    @property
    def must_stop(self) -> bool:
        """True once the worker may not continue."""
        return self._stop.is_set()

    @property
    def lost(self) -> bool:
        """True if the service has not answered for two minutes."""
        return self._clock() - self._last_contact > LOST_SECONDS

    def report_progress(self, progress: models_pb2.RunProgressed) -> None:
        """Queue a report. Does not block: a report is dropped if too many wait."""
        try:
            self._waiting.put_nowait(progress)
        except queue.Full:
            log.warning("report dropped")

    def report_trained(self, trained: models_pb2.AdapterTrained) -> bool:
        """Report the adapter now, after everything that waits. True if it came too late. Raises TailorError; blocks."""
        return self._finish(pb.ReportProgressRequest(run_id=self._run_id, epoch=self._epoch, trained=trained))

    def report_failed(self, failed: models_pb2.RunFailed) -> bool:
        """Report now that the run cannot succeed. Raises TailorError; blocks."""
        return self._finish(pb.ReportProgressRequest(run_id=self._run_id, epoch=self._epoch, failed=failed))

    def close(self) -> None:
        """Send what waits, then end the thread. Blocks for up to 20 seconds."""
        if self._thread.is_alive():
            self._waiting.put(None)
            self._thread.join(CALL_SECONDS * 2)

    def _finish(self, request: pb.ReportProgressRequest) -> bool:
        self.close()
        try:
            return self._send_report(request)
        except Aborted as error:
            if error.reason == Reason.STALE_EPOCH:
                raise Superseded(error.reason, error.message) from None
            raise

    def _run(self) -> None:
        while True:
            try:
                progress = self._waiting.get(timeout=HEARTBEAT_SECONDS)
            except queue.Empty:
                self._send(pb.ReportProgressRequest(run_id=self._run_id, epoch=self._epoch, heartbeat=pb.Heartbeat()))
                self._send_lines()
                continue
            if progress is None:
                self._send_lines()
                return
            self._send(pb.ReportProgressRequest(run_id=self._run_id, epoch=self._epoch, progress=progress))
            if self._clock() - self._lines_sent >= LINES_SECONDS:
                self._send_lines()

    def _send_lines(self) -> None:
        self._lines_sent = self._clock()
        if lines := self._lines.take():
            log_lines = pb.LogLines(lines=lines)
            self._send(pb.ReportProgressRequest(run_id=self._run_id, epoch=self._epoch, log=log_lines))

    def _send(self, request: pb.ReportProgressRequest) -> None:
        try:
            stop = self._send_report(request)
        except Aborted:
            stop = True
        except TailorError as error:
            log.warning("report not delivered", reason=error.reason)
            return
        self._last_contact = self._clock()
        if stop:
            self._stop.set()


class NullReporter(Reporter):
    """Reports nothing: for a process that only computes."""

    def __init__(self) -> None:
        super().__init__(lambda _: False, "", 0)

    def start(self) -> None:
        """Starts no thread."""

    @property
    def lost(self) -> bool:
        return False
