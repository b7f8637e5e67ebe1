"""Training over gRPC."""

import grpc

from services.console.adapters.calls import LIST_SIZE, READ_SECONDS, RpcStream
from services.console.adapters.convert import time, word
from services.console.runs import LogLine, Plan, Price, Progress, Report, Run, Stage, Watched
from services.console.views import Page
from tailor.api.events.v1 import models_pb2
from tailor.api.training.v1 import training_pb2, training_pb2_grpc
from tailor.rpc.channel import wire_errors

WATCH_SECONDS = 3600  # the browser then asks again


class TrainingClient:
    """Satisfies `domain.Training`."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._stub = training_pb2_grpc.TrainingServiceStub(channel)

    def run(self, run_id: str) -> Run:
        """One run."""
        with wire_errors("training"):
            return run(self._stub.GetRun(training_pb2.GetRunRequest(run_id=run_id), timeout=READ_SECONDS).run)

    def runs(self, token: str) -> Page[Run]:
        """A page of runs."""
        request = training_pb2.ListRunsRequest(page_token=token, page_size=LIST_SIZE)
        with wire_errors("training"):
            answer = self._stub.ListRuns(request, timeout=READ_SECONDS)
        return Page(tuple(map(run, answer.runs)), answer.next_page_token)

    def watch(self, run_id: str) -> RpcStream[Watched]:
        """The run's reports and its workers' logs from the first on, until it ends."""
        call = self._stub.WatchRun(training_pb2.WatchRunRequest(run_id=run_id), timeout=WATCH_SECONDS)
        return RpcStream("training", call, watched)


def run(wire: training_pb2.Run) -> Run:
    """A run."""
    return Run(
        run_id=wire.run_id,
        specialist=wire.specialist,
        dataset_digest=wire.dataset_digest,
        base=wire.base,
        recipe=wire.recipe,
        state=word(training_pb2.RunState.Name(wire.state), "RUN_STATE_"),
        reason=wire.reason,
        message=wire.message,
        progress=progress(wire.progress) if wire.HasField("progress") else None,
        adapter_digest=wire.adapter_digest,
        epoch=wire.epoch,
        first_loss=wire.first_loss,
        create_time=time(wire.create_time),
        start_time=time(wire.start_time),
        end_time=time(wire.end_time),
        parent_digest=wire.parent_digest,
        priority=wire.priority,
        stages=tuple(map(stage, wire.stages)),
        stage=wire.stage,
        plan=plan(wire.plan) if wire.HasField("plan") else None,
        report=report(wire.report) if wire.HasField("report") else None,
    )


def progress(wire: models_pb2.RunProgressed) -> Progress:
    """Where a stage stands."""
    return Progress(
        phase=wire.phase,
        step=wire.step,
        total_steps=wire.total_steps,
        loss=wire.loss,
        learning_rate=wire.learning_rate,
        gradient_norm=wire.gradient_norm,
        tokens_per_second=wire.tokens_per_second,
        remaining_seconds=wire.remaining_seconds,
        stage=wire.stage,
        memory_bytes=wire.memory_bytes,
        reward=wire.reward if wire.HasField("reward") else None,
        kl=wire.kl if wire.HasField("kl") else None,
        accuracy=wire.accuracy if wire.HasField("accuracy") else None,
        held_out_loss=wire.held_out_loss if wire.HasField("held_out_loss") else None,
    )


def stage(wire: training_pb2.RunStage) -> Stage:
    """A stage."""
    return Stage(
        recipe=wire.recipe,
        method=wire.method,
        dataset_digest=wire.dataset_digest,
        parent_digest=wire.parent_digest,
        adapter_digest=wire.adapter_digest,
        kind=word(models_pb2.AdapterKind.Name(wire.kind), "ADAPTER_KIND_") if wire.kind else "",
    )


def plan(wire: training_pb2.RunPlan) -> Plan:
    """A forecast."""
    return Plan(
        rows=wire.rows,
        tokens=wire.tokens,
        steps=wire.steps,
        memory_bytes=wire.memory_bytes,
        device_memory_bytes=wire.device_memory_bytes,
        device=wire.device,
        seconds=wire.seconds,
        seconds_from=wire.seconds_from,
        price=price(wire.price),
        refusal=wire.refusal,
        nearest_recipe=wire.nearest_recipe,
        create_time=time(wire.create_time),
    )


def report(wire: training_pb2.RunReport) -> Report:
    """What a run took."""
    return Report(
        rows=wire.rows,
        tokens=wire.tokens,
        steps=wire.steps,
        memory_bytes=wire.memory_bytes,
        seconds=wire.seconds,
        price=price(wire.price),
        memory_error=wire.memory_error,
        seconds_error=wire.seconds_error,
        tokens_error=wire.tokens_error,
    )


def price(wire: training_pb2.Price) -> Price:
    """A price."""
    return Price(wire.currency, wire.total, wire.compute, wire.teacher, wire.annotation)


def watched(wire: training_pb2.WatchRunResponse) -> Watched:
    """A run as it stands, and what its workers wrote."""
    lines = (LogLine(time(line.create_time), line.level, line.message, line.epoch) for line in wire.log_lines)
    return Watched(run(wire.run), tuple(lines))
