"""Training's runs, and synthetic's builds of datasets, over gRPC."""

import grpc

from services.console.adapters.calls import LIST_SIZE, WRITE_SECONDS, RpcStream, call
from services.console.domain import Page, RunTerms
from services.console.ports import DatasetBuilds, RunCommands, RunReader, RunReports
from tailor.api.events.v1 import models_pb2
from tailor.api.synthetic.v1 import synthetic_pb2, synthetic_pb2_grpc
from tailor.api.training.v1 import training_pb2, training_pb2_grpc
from tailor.errors import Aborted, DeadlineExceeded, Reason, Unavailable

WATCH_SECONDS = 3600  # the browser reconnects afterwards
# Replaying the reports of a run with thousands of steps takes about a second.
REPORTS_SECONDS = 6
MAX_REPORTS = 20_000
# Longer builds continue without the page that started them.
BUILD_SECONDS = 20


class TrainingClient(RunReader):
    """The runs of training."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._stub = training_pb2_grpc.TrainingServiceStub(channel)

    def get_run(self, run_id: str) -> training_pb2.Run:
        return call("training", self._stub.GetRun, training_pb2.GetRunRequest(run_id=run_id)).run

    def list_runs(self, token: str, specialist: str = "") -> Page[training_pb2.Run]:
        request = training_pb2.ListRunsRequest(specialist=specialist, page_token=token, page_size=LIST_SIZE)
        answer = call("training", self._stub.ListRuns, request)
        return Page(tuple(answer.runs), answer.next_page_token)

    def watch_run(self, run_id: str) -> RpcStream[training_pb2.WatchRunResponse]:
        """The run's reports and its workers' logs, from the first one until the run ends."""
        request = training_pb2.WatchRunRequest(run_id=run_id)
        return RpcStream("training", self._stub.WatchRun(request, timeout=WATCH_SECONDS))

    def read_reports(self, run_id: str) -> RunReports:
        request = training_pb2.WatchRunRequest(run_id=run_id)
        stream = RpcStream[training_pb2.WatchRunResponse](
            "training", self._stub.WatchRun(request, timeout=REPORTS_SECONDS)
        )
        run: training_pb2.Run | None = None
        reports: list[models_pb2.RunProgressed] = []
        try:
            for update in stream:
                if run is None:
                    run = update.run
                elif not update.log_lines:
                    reports.append(update.run.progress)
                # The stream of a run that lasts goes on after its newest report.
                if not run.HasField("progress") or len(reports) == MAX_REPORTS:
                    break
                if reports and _is_same(reports[-1], run.progress):
                    break
        except DeadlineExceeded:
            if run is None:
                raise
            return RunReports(run, tuple(reports), complete=False)
        finally:
            stream.close()
        if run is None:
            raise Unavailable(Reason.UNAVAILABLE, "training ended the stream of a run before its first message.")
        return RunReports(run, tuple(reports), complete=len(reports) < MAX_REPORTS)


def _is_same(first: models_pb2.RunProgressed, second: models_pb2.RunProgressed) -> bool:
    names = ("epoch", "stage", "step", "phase", "create_time")
    return all(getattr(first, name) == getattr(second, name) for name in names)


class RunCommandClient(RunCommands):
    """What engineers do with runs."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._stub = training_pb2_grpc.TrainingServiceStub(channel)

    def plan(self, terms: RunTerms) -> training_pb2.RunPlan:
        request = training_pb2.PlanRunRequest(
            specialist=terms.specialist,
            dataset_digest=terms.dataset,
            base=terms.base,
            recipe=terms.recipe,
            parent_digest=terms.parent,
            preference_dataset_digest=terms.preferences,
        )
        return call("training", self._stub.PlanRun, request, WRITE_SECONDS).plan

    def create(self, terms: RunTerms, request_id: str) -> training_pb2.Run:
        request = training_pb2.CreateRunRequest(
            specialist=terms.specialist,
            dataset_digest=terms.dataset,
            base=terms.base,
            recipe=terms.recipe,
            parent_digest=terms.parent,
            preference_dataset_digest=terms.preferences,
            priority=terms.priority,
            request_id=request_id,
        )
        return call("training", self._stub.CreateRun, request, WRITE_SECONDS).run

    def cancel(self, run_id: str) -> training_pb2.Run:
        return call("training", self._stub.CancelRun, training_pb2.CancelRunRequest(run_id=run_id), WRITE_SECONDS).run

    def approve(self, run_id: str, approved_by: str) -> training_pb2.Run:
        request = training_pb2.ApproveRunRequest(run_id=run_id, approved_by=approved_by)
        return call("training", self._stub.ApproveRun, request, WRITE_SECONDS).run


class BuildClient(DatasetBuilds):
    """Synthetic's builds."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._stub = synthetic_pb2_grpc.SyntheticServiceStub(channel)

    def build(self, specialist: str, kind: str, request_id: str) -> synthetic_pb2.BuildDatasetResponse | None:
        request = synthetic_pb2.BuildDatasetRequest(
            specialist=specialist,
            kind=models_pb2.DatasetKind.Value(f"DATASET_KIND_{kind.upper()}"),
            request_id=request_id,
        )
        try:
            return call("synthetic", self._stub.BuildDataset, request, BUILD_SECONDS)
        except DeadlineExceeded:
            # The service goes on with it.
            return None
        except Aborted as error:
            if error.reason != Reason.BUILD_RUNNING:
                raise
            return None

    def get_state(self, specialist: str) -> synthetic_pb2.GetBuildStateResponse:
        request = synthetic_pb2.GetBuildStateRequest(specialist=specialist)
        return call("synthetic", self._stub.GetBuildState, request)

    def list_origins(self, specialist: str) -> synthetic_pb2.ListOriginsResponse:
        request = synthetic_pb2.ListOriginsRequest(specialist=specialist)
        return call("synthetic", self._stub.ListOrigins, request)

    def admit_origin(self, specialist: str, kind: str, name: str, admitted_by: str) -> None:
        request = synthetic_pb2.AdmitOriginRequest(
            specialist=specialist,
            kind=synthetic_pb2.OriginKind.Value(f"ORIGIN_KIND_{kind.upper()}"),
            name=name,
            admitted_by=admitted_by,
        )
        call("synthetic", self._stub.AdmitOrigin, request, WRITE_SECONDS)
