"""The training service in this process, with answers that tests set."""

import hashlib
from typing import Any

from tailor.api.events.v1 import models_pb2
from tailor.api.training.v1 import training_pb2, training_pb2_grpc
from tailor.errors import Reason, TailorError, Unavailable
from tests.fakes.serving import ADAPTER, DATASET, refuse

PRICE = training_pb2.Price(currency="EUR", total=72.0, compute=2.0, teacher=10.0, annotation=60.0)
PLAN = training_pb2.RunPlan(
    rows=200,
    tokens=40_000,
    steps=80,
    memory_bytes=3 * 2**30,
    device_memory_bytes=4 * 2**30,
    device="2 CPU cores",
    devices=1,
    seconds=120.0,
    seconds_from="measured",
    price=PRICE,
    fits=True,
)
REPORT = training_pb2.RunReport(rows=200, tokens=40_000, steps=80, seconds=100.0, price=PRICE, seconds_error=0.2)
UNFIT_PLAN = training_pb2.RunPlan(
    refusal="It needs 9 GiB of 4 GiB.", nearest_recipe="qlora", device_memory_bytes=4 * 2**30
)


class FakeTraining(training_pb2_grpc.TrainingServiceServicer):
    """Plays one run. `ends` is its final state; `breaks` is the number of calls that fail on the way."""

    def __init__(self) -> None:
        self.ends = training_pb2.RUN_STATE_SUCCEEDED
        self.breaks = 0
        self.created: list[training_pb2.CreateRunRequest] = []
        self.recipes = ["lora"]
        self.polls = 0
        self.planned: list[training_pb2.PlanRunRequest] = []
        self.run_ids = ["run_1"]
        self.cancelled: list[str] = []
        self.plan = PLAN
        self.plan_error: TailorError | None = None
        self.approved: list[str] = []
        self.exported: list[training_pb2.ExportAdapterRequest] = []
        self.sent = {"README.md": b"# Reports", "adapter_model.safetensors": bytes(2 * 2**20)}

    def PlanRun(self, request: Any, context: Any) -> Any:
        self.planned.append(request)
        if self.plan_error is not None:
            refuse(context, self.plan_error)
        return training_pb2.PlanRunResponse(plan=UNFIT_PLAN if request.recipe == "full" else self.plan)

    def _run(self, state: Any, step: int = 0) -> training_pb2.Run:
        run = training_pb2.Run(run_id="run_1", specialist="engagement-reports", dataset_digest=DATASET, state=state)
        if step:
            progress = models_pb2.RunProgressed(
                phase="training", step=step, total_steps=4, loss=2.5, tokens_per_second=200
            )
            run.progress.CopyFrom(progress)
        for recipe in self.recipes:
            run.stages.add(recipe=recipe, method="sft", dataset_digest=DATASET)
        run.plan.CopyFrom(PLAN)
        if state == training_pb2.RUN_STATE_SUCCEEDED:
            run.adapter_digest = ADAPTER
            run.report.CopyFrom(REPORT)
        if state == training_pb2.RUN_STATE_FAILED:
            run.reason, run.message = "INVALID_ROW", "A row has no answer."
        return run

    def _break(self, context: Any) -> None:
        if self.breaks:
            self.breaks -= 1
            refuse(context, Unavailable(Reason.STOPPED, "The service stops."))

    def GetRun(self, request: Any, context: Any) -> Any:
        self._break(context)
        self.polls += 1
        if self.polls > 2:
            return training_pb2.GetRunResponse(run=self._run(self.ends))
        return training_pb2.GetRunResponse(run=self._run(training_pb2.RUN_STATE_RUNNING, 1 if self.polls == 1 else 4))

    def ListRuns(self, request: Any, context: Any) -> Any:
        runs = [self._run(training_pb2.RUN_STATE_RUNNING, 2) for _ in self.run_ids]
        for run, run_id in zip(runs, self.run_ids, strict=True):
            run.run_id = run_id
        return training_pb2.ListRunsResponse(runs=runs)

    def CancelRun(self, request: Any, context: Any) -> Any:
        self.cancelled.append(request.run_id)
        return training_pb2.CancelRunResponse(run=self._run(training_pb2.RUN_STATE_CANCELLED))

    def ApproveRun(self, request: Any, context: Any) -> Any:
        self.approved.append(request.run_id)
        run = self._run(training_pb2.RUN_STATE_QUEUED)
        run.approved_by = "key_7"
        run.approve_time.FromJsonString("2026-01-05T09:00:00Z")
        return training_pb2.ApproveRunResponse(run=run)

    def CreateRun(self, request: Any, context: Any) -> Any:
        self.created.append(request)
        return training_pb2.CreateRunResponse(run=self._run(training_pb2.RUN_STATE_QUEUED))

    def WatchRun(self, request: Any, context: Any) -> Any:
        yield training_pb2.WatchRunResponse(run=self._run(training_pb2.RUN_STATE_RUNNING, 1))
        line = training_pb2.LogLine(level="info", message="checkpoint stored step=2", epoch=1)
        yield training_pb2.WatchRunResponse(run=self._run(training_pb2.RUN_STATE_RUNNING, 1), log_lines=[line])
        self._break(context)
        yield training_pb2.WatchRunResponse(run=self._run(training_pb2.RUN_STATE_RUNNING, 4))
        yield training_pb2.WatchRunResponse(run=self._run(self.ends))

    def AddBase(self, request: Any, context: Any) -> Any:
        yield training_pb2.AddBaseResponse(step="unpacking the wheel")
        yield training_pb2.AddBaseResponse(
            base=training_pb2.Base(name=request.name, licence="Apache-2.0", size_bytes=500)
        )

    def ExportAdapter(self, request: Any, context: Any) -> Any:
        self.exported.append(request)
        yield training_pb2.ExportAdapterResponse(step="reading it back in a fresh process")
        self._break(context)
        files = {"README.md": b"# Reports", "adapter_model.safetensors": bytes(2 * 2**20)}
        listed = [
            training_pb2.ExportedFile(name=name, sha256=hashlib.sha256(data).hexdigest(), size_bytes=len(data))
            for name, data in files.items()
        ]
        yield training_pb2.ExportAdapterResponse(files=listed)
        for name, data in self.sent.items():
            for place in range(0, len(data), 2**20):
                yield training_pb2.ExportAdapterResponse(name=name, chunk=data[place : place + 2**20])

    def ListBases(self, request: Any, context: Any) -> Any:
        return training_pb2.ListBasesResponse(bases=[training_pb2.Base(name="tiny", parameters=10**6)])
