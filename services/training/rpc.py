"""The gRPC methods of training: translate calls to handlers, and hide what the caller may not see."""

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import grpc

from services.training import handlers, reporting, wire
from services.training.adapters.manifests import find_adapter, find_dataset
from services.training.adapters.sql import WatchCursor
from services.training.domain import Base, Run
from services.training.exports import list_digests
from services.training.handlers import TrainingPorts
from services.training.new_run import RunRequest
from services.training.pipeline import plan_pipeline
from tailor.api.training.v1 import training_pb2 as pb
from tailor.api.training.v1 import training_pb2_grpc
from tailor.codec import decode, encode
from tailor.errors import InvalidArgument, NotFound, Reason
from tailor.logging import get_logger
from tailor.rpc.auth import check_caller, current_caller

log = get_logger(__name__)

CHUNK_BYTES = 2**20
DEFAULT_PAGE = 50
WATCH_SECONDS = 1.0


class TrainingServicer(training_pb2_grpc.TrainingServiceServicer):
    """Runs of specialists that a caller may not use are reported as unknown."""

    def __init__(self, ports: TrainingPorts) -> None:
        self._ports = ports

    def CreateRun(self, request: pb.CreateRunRequest, context: grpc.ServicerContext) -> pb.CreateRunResponse:
        """Queue a run. Idempotent: the run's id follows from its key."""
        self._check_may_train(request)
        return pb.CreateRunResponse(run=wire.from_run(handlers.create_run(self._ports, decode(RunRequest, request))))

    def PlanRun(self, request: pb.PlanRunRequest, context: grpc.ServicerContext) -> pb.PlanRunResponse:
        """Forecast a run."""
        self._check_may_train(request)
        plan = plan_pipeline if request.started_by_dataset else handlers.plan_run
        return pb.PlanRunResponse(plan=encode(pb.RunPlan, plan(self._ports, decode(RunRequest, request))))

    def GetRun(self, request: pb.GetRunRequest, context: grpc.ServicerContext) -> pb.GetRunResponse:
        """One run."""
        return pb.GetRunResponse(run=wire.from_run(self._find_visible(request.run_id)))

    def ListRuns(self, request: pb.ListRunsRequest, context: grpc.ServicerContext) -> pb.ListRunsResponse:
        """A page of runs, newest first, of the specialists that the caller may use."""
        if request.specialist:
            _check_specialist(request.specialist)
        names = [request.specialist] if request.specialist else current_caller().specialists
        page = self._ports.runs.list_page(request, names)
        return pb.ListRunsResponse(runs=map(wire.from_run, page.items), next_page_token=page.next_token)

    def WatchRun(self, request: pb.WatchRunRequest, context: grpc.ServicerContext) -> Iterator[pb.WatchRunResponse]:
        """Stream every report from the first, every stored log line, and finally the run as it ended."""
        yield pb.WatchRunResponse(run=wire.from_run(self._find_visible(request.run_id)))
        cursor = WatchCursor()
        while context.is_active():
            update = self._ports.runs.news(request.run_id, cursor)
            run, cursor = update.run, update.cursor
            if update.lines:
                yield pb.WatchRunResponse(
                    run=wire.from_run(run), log_lines=[encode(pb.LogLine, line) for line in update.lines]
                )
            for progress in update.reports:
                yield pb.WatchRunResponse(run=wire.from_run(replace(run, progress=progress)))
            if run.state.ended:
                yield pb.WatchRunResponse(run=wire.from_run(run))
                return
            check_caller()
            time.sleep(WATCH_SECONDS)

    def CancelRun(self, request: pb.CancelRunRequest, context: grpc.ServicerContext) -> pb.CancelRunResponse:
        """End a run."""
        self._find_visible(request.run_id)
        run = handlers.cancel_run(self._ports.runs, request.run_id, self._ports.now())
        return pb.CancelRunResponse(run=wire.from_run(run))

    def ApproveRun(self, request: pb.ApproveRunRequest, context: grpc.ServicerContext) -> pb.ApproveRunResponse:
        """Queue a run that waits for approval."""
        self._find_visible(request.run_id)
        caller = current_caller()
        approved_by = request.approved_by if caller.kind == "service" else caller.key_id
        return pb.ApproveRunResponse(run=wire.from_run(handlers.approve_run(self._ports, request.run_id, approved_by)))

    def ReportProgress(
        self, request: pb.ReportProgressRequest, context: grpc.ServicerContext
    ) -> pb.ReportProgressResponse:
        """Accept a worker's report."""
        return pb.ReportProgressResponse(stop=self._report(request))

    def _report(self, request: pb.ReportProgressRequest) -> bool:
        runs, run_id, epoch, now = self._ports.runs, request.run_id, request.epoch, self._ports.now()
        match request.WhichOneof("report"):
            case "progress":
                progress = wire.to_progress(request.progress, epoch, now)
                return reporting.report_progress(runs, run_id, epoch, progress, now)
            case "trained":
                trained = wire.to_trained(request.trained)
                return reporting.report_trained(runs, run_id, epoch, trained, rates=self._ports.rates, now=now)
            case "failed":
                return reporting.report_failed(runs, run_id, epoch, wire.to_failure(request.failed), now)
            case "heartbeat":
                return reporting.heartbeat(runs, run_id, epoch, now)
            case "log":
                lines = [wire.to_line(line, epoch, now) for line in request.log.lines]
                return reporting.report_log(runs, run_id, epoch, lines, now)
            case _:
                raise InvalidArgument(
                    Reason.EMPTY_REPORT, "Set one field of `report`.", field_violations={"report": "not set"}
                )

    def AddBase(self, request: pb.AddBaseRequest, context: grpc.ServicerContext) -> Iterator[pb.AddBaseResponse]:
        """Fetch a base, streaming each step."""
        for step in handlers.add_base(self._ports.bases, request.name, request.source):
            if isinstance(step, Base):
                yield pb.AddBaseResponse(step="added", base=encode(pb.Base, step))
            else:
                yield pb.AddBaseResponse(step=step)

    def ExportAdapter(
        self, request: pb.ExportAdapterRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.ExportAdapterResponse]:
        """Write an adapter for other programs, streaming each step, then the files."""
        digest = request.adapter_digest
        self._check_adapter(digest)
        for step in self._ports.exporter.export(digest, merged=request.merged, generation=request.generation):
            if isinstance(step, Path):
                log.info(
                    "adapter exported", adapter_digest=digest, key_id=current_caller().key_id, merged=request.merged
                )
                yield from send_folder(step)
            else:
                yield pb.ExportAdapterResponse(step=step)

    def CheckPipeline(
        self, request: pb.CheckPipelineRequest, context: grpc.ServicerContext
    ) -> pb.CheckPipelineResponse:
        """Check a specialist's base and recipes."""
        handlers.check_pipeline(self._ports, request.base, request.recipes)
        return pb.CheckPipelineResponse()

    def ListBases(self, request: pb.ListBasesRequest, context: grpc.ServicerContext) -> pb.ListBasesResponse:
        """All bases, by name."""
        return pb.ListBasesResponse(bases=[encode(pb.Base, base) for base in self._ports.bases.list()])

    def _check_may_train(self, request: pb.CreateRunRequest | pb.PlanRunRequest) -> None:
        """Raise NotFound for a specialist that the caller may not use, and for its datasets and adapters."""
        _check_specialist(request.specialist)
        for digest in filter(None, (request.dataset_digest, request.preference_dataset_digest)):
            if not current_caller().may_use(find_dataset(self._ports.store, digest).specialist):
                raise NotFound(Reason.UNKNOWN_DATASET, "There is no such dataset.", dataset_digest=digest)
        if request.parent_digest:
            self._check_adapter(request.parent_digest)

    def _check_adapter(self, digest: str) -> None:
        """Raise NotFound for an adapter of a specialist that the caller may not use."""
        if not current_caller().may_use(find_adapter(self._ports.store, digest).specialist):
            raise NotFound(Reason.UNKNOWN_ADAPTER, "There is no such adapter.", adapter_digest=digest)

    def _find_visible(self, run_id: str) -> Run:
        run = self._ports.runs.get(run_id)
        if not current_caller().may_use(run.key.specialist):
            raise NotFound(Reason.UNKNOWN_RUN, "There is no such run.", run_id=run_id)
        return run


def send_folder(folder: Path) -> Iterator[pb.ExportAdapterResponse]:
    """The list of an exported folder's files, then their bytes."""
    digests = list_digests(folder)
    files = [
        pb.ExportedFile(name=name, sha256=digest, size_bytes=(folder / name).stat().st_size)
        for name, digest in digests.items()
    ]
    yield pb.ExportAdapterResponse(files=files)
    for name in digests:
        with (folder / name).open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                yield pb.ExportAdapterResponse(name=name, chunk=chunk)


def _check_specialist(specialist: str) -> None:
    if not current_caller().may_use(specialist):
        raise NotFound(Reason.UNKNOWN_SPECIALIST, "There is no such specialist.", specialist=specialist)
