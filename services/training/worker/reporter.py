"""A worker's only word: reports and heartbeats to the training service, sent beside the training so that a lost service never stalls it."""

import queue
import threading
import time
from collections.abc import Callable
from typing import Protocol

from services.training.worker.log_lines import LogLines
from tailor.api.events.v1 import models_pb2
from tailor.api.training.v1 import training_pb2 as pb
from tailor.api.training.v1 import training_pb2_grpc
from tailor.errors import Aborted, TailorError
from tailor.logging import get_logger
from tailor.rpc.channel import wire_errors

log = get_logger(__name__)

HEARTBEAT_SECONDS = 5.0
LINES_SECONDS = 1.0
CALL_SECONDS = 10.0
LOST_SECONDS = 120.0
MAX_WAITING = 1000


class Service(Protocol):
    """Takes reports; raises TailorError."""

    def report(self, request: pb.ReportProgressRequest) -> bool:
        """Send one report; True where the worker must stop."""
        ...


class RemoteService:
    """The training service over gRPC."""

    def __init__(self, stub: training_pb2_grpc.TrainingServiceStub) -> None:
        self._stub = stub

    def report(self, request: pb.ReportProgressRequest) -> bool:
        """Send one report."""
        with wire_errors("training"):
            return self._stub.ReportProgress(request, timeout=CALL_SECONDS).stop


class Voice:
    """Speaks for one worker in a thread of its own, its log too. `must_stop` once the run was cancelled or its lease went to another;
    `lost` once the service has not answered for two minutes."""

    def __init__(
        self,
        service: Service,
        run_id: str,
        epoch: int,
        lines: LogLines | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._service = service
        self._run_id = run_id
        self._epoch = epoch
        self._lines = lines or LogLines()
        self._clock = clock
        self._last_contact = self._lines_said = clock()
        self._waiting: queue.Queue[models_pb2.RunProgressed | None] = queue.Queue(MAX_WAITING)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._speak, name="voice", daemon=True)

    def start(self) -> None:
        """Begin to speak."""
        self._thread.start()

    @property
    def must_stop(self) -> bool:
        """True once the worker may not go on."""
        return self._stop.is_set()

    @property
    def lost(self) -> bool:
        """True where the service has been silent for two minutes."""
        return self._clock() - self._last_contact > LOST_SECONDS

    def progress(self, progress: models_pb2.RunProgressed) -> None:
        """Report soon; a report more than the service can be told is dropped."""
        try:
            self._waiting.put_nowait(progress)
        except queue.Full:
            log.warning("report dropped")

    def trained(self, trained: models_pb2.AdapterTrained) -> bool:
        """Report the adapter now, after all that waits; True where it came too late."""
        self.close()
        return self._service.report(pb.ReportProgressRequest(run_id=self._run_id, epoch=self._epoch, trained=trained))

    def failed(self, failed: models_pb2.RunFailed) -> bool:
        """Report now that the run cannot succeed."""
        self.close()
        return self._service.report(pb.ReportProgressRequest(run_id=self._run_id, epoch=self._epoch, failed=failed))

    def close(self) -> None:
        """Send what waits, then fall silent."""
        if self._thread.is_alive():
            self._waiting.put(None)
            self._thread.join(CALL_SECONDS * 2)

    def _speak(self) -> None:
        while True:
            try:
                progress = self._waiting.get(timeout=HEARTBEAT_SECONDS)
            except queue.Empty:
                self._say(pb.ReportProgressRequest(run_id=self._run_id, epoch=self._epoch, heartbeat=pb.Heartbeat()))
                self._say_lines()
                continue
            if progress is None:
                self._say_lines()
                return
            self._say(pb.ReportProgressRequest(run_id=self._run_id, epoch=self._epoch, progress=progress))
            if self._clock() - self._lines_said >= LINES_SECONDS:
                self._say_lines()

    def _say_lines(self) -> None:
        self._lines_said = self._clock()
        if lines := self._lines.take():
            log_lines = pb.LogLines(lines=lines)
            self._say(pb.ReportProgressRequest(run_id=self._run_id, epoch=self._epoch, log=log_lines))

    def _say(self, request: pb.ReportProgressRequest) -> None:
        try:
            stop = self._service.report(request)
        except Aborted:
            stop = True
        except TailorError as error:
            log.warning("not heard", reason=error.reason)
            return
        self._last_contact = self._clock()
        if stop:
            self._stop.set()
