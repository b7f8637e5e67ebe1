"""The training service on the wire."""

import time
from collections.abc import Iterator
from dataclasses import replace

import grpc

from services.training import handlers, reporting, wire
from services.training.domain import Base, Run
from services.training.handlers import Context
from services.training.ports import Seen
from tailor.api.training.v1 import training_pb2 as pb
from tailor.api.training.v1 import training_pb2_grpc
from tailor.errors import InvalidArgument, NotFound, Reason
from tailor.rpc.auth import current_caller

WATCH_SECONDS = 1.0


class TrainingServicer(training_pb2_grpc.TrainingServiceServicer):
    """Translates calls to handlers."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def CreateRun(self, request: pb.CreateRunRequest, context: grpc.ServicerContext) -> pb.CreateRunResponse:
        """Queue a recipe on a dataset. The run's id follows from its key, so a repeated request finds its run."""
        self._check_may_train(request)
        return pb.CreateRunResponse(run=wire.from_run(handlers.create_run(self._context, wire.to_wanted(request))))

    def PlanRun(self, request: pb.PlanRunRequest, context: grpc.ServicerContext) -> pb.PlanRunResponse:
        """What a run would take."""
        self._check_may_train(request)
        return pb.PlanRunResponse(plan=wire.from_plan(handlers.plan_run(self._context, wire.to_wanted(request))))

    def GetRun(self, request: pb.GetRunRequest, context: grpc.ServicerContext) -> pb.GetRunResponse:
        """One run."""
        return pb.GetRunResponse(run=wire.from_run(self._visible(request.run_id)))

    def ListRuns(self, request: pb.ListRunsRequest, context: grpc.ServicerContext) -> pb.ListRunsResponse:
        """A page of runs, newest first; those of specialists that the caller may use."""
        if request.specialist:
            _check_specialist(request.specialist)
        runs, token = handlers.list_runs(self._context, request.specialist, request.page_size, request.page_token)
        caller = current_caller()
        visible = [wire.from_run(run) for run in runs if caller.may_use(run.key.specialist)]
        return pb.ListRunsResponse(runs=visible, next_page_token=token)

    def WatchRun(self, request: pb.WatchRunRequest, context: grpc.ServicerContext) -> Iterator[pb.WatchRunResponse]:
        """Every report from the first on and every line that is kept, then the run as it ended."""
        yield pb.WatchRunResponse(run=wire.from_run(self._visible(request.run_id)))
        seen = Seen()
        while context.is_active():
            news = handlers.watch_run(self._context, request.run_id, seen)
            run, seen = news.run, news.seen
            if news.lines:
                yield pb.WatchRunResponse(
                    run=wire.from_run(run), log_lines=[wire.from_line(line) for line in news.lines]
                )
            for progress in news.reports:
                yield pb.WatchRunResponse(run=wire.from_run(replace(run, progress=progress)))
            if run.state.ended:
                yield pb.WatchRunResponse(run=wire.from_run(run))
                return
            time.sleep(WATCH_SECONDS)

    def CancelRun(self, request: pb.CancelRunRequest, context: grpc.ServicerContext) -> pb.CancelRunResponse:
        """End a run."""
        self._visible(request.run_id)
        return pb.CancelRunResponse(run=wire.from_run(handlers.cancel_run(self._context, request.run_id)))

    def ReportProgress(
        self, request: pb.ReportProgressRequest, context: grpc.ServicerContext
    ) -> pb.ReportProgressResponse:
        """A worker's word."""
        return pb.ReportProgressResponse(stop=self._report(request))

    def _report(self, request: pb.ReportProgressRequest) -> bool:
        run_id, epoch = request.run_id, request.epoch
        match request.WhichOneof("report"):
            case "progress":
                progress = wire.to_progress(request.progress, epoch, self._context.now())
                return reporting.report_progress(self._context, run_id, epoch, progress)
            case "trained":
                return reporting.report_trained(self._context, run_id, epoch, wire.to_trained(request.trained))
            case "failed":
                return reporting.report_failed(self._context, run_id, epoch, wire.to_failure(request.failed))
            case "heartbeat":
                return reporting.heartbeat(self._context, run_id, epoch)
            case "log":
                lines = [wire.to_line(line, epoch, self._context.now()) for line in request.log.lines]
                return reporting.report_log(self._context, run_id, epoch, lines)
            case _:
                raise InvalidArgument(
                    Reason.EMPTY_REPORT, "A report says one thing.", field_violations={"report": "not set"}
                )

    def AddBase(self, request: pb.AddBaseRequest, context: grpc.ServicerContext) -> Iterator[pb.AddBaseResponse]:
        """Fetch a base, saying what is done."""
        for step in handlers.add_base(self._context, request.name, request.source):
            if isinstance(step, Base):
                yield pb.AddBaseResponse(step="added", base=wire.from_base(step))
            else:
                yield pb.AddBaseResponse(step=step)

    def ListBases(self, request: pb.ListBasesRequest, context: grpc.ServicerContext) -> pb.ListBasesResponse:
        """All bases."""
        return pb.ListBasesResponse(bases=[wire.from_base(base) for base in handlers.list_bases(self._context)])

    def _check_may_train(self, request: pb.CreateRunRequest | pb.PlanRunRequest) -> None:
        """NotFound for a specialist that the caller may not use, and for datasets and adapters of one."""
        _check_specialist(request.specialist)
        for digest in filter(None, (request.dataset_digest, request.preference_dataset_digest)):
            if not current_caller().may_use(self._context.datasets.find(digest).specialist):
                raise NotFound(Reason.UNKNOWN_DATASET, "There is no such dataset.", dataset_digest=digest)
        parent = request.parent_digest
        if parent and not current_caller().may_use(self._context.adapters.find(parent).specialist):
            raise NotFound(Reason.UNKNOWN_ADAPTER, "There is no such adapter.", adapter_digest=parent)

    def _visible(self, run_id: str) -> Run:
        run = handlers.get_run(self._context, run_id)
        if not current_caller().may_use(run.key.specialist):
            raise NotFound(Reason.UNKNOWN_RUN, "There is no such run.", run_id=run_id)
        return run


def _check_specialist(specialist: str) -> None:
    if not current_caller().may_use(specialist):
        raise NotFound(Reason.UNKNOWN_SPECIALIST, "There is no such specialist.", specialist=specialist)
