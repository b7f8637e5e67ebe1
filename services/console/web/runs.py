"""The pages of runs: the queue, and one run with its plan and its live updates."""

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response
from google.protobuf.message import Message

from services.console import handlers, run_curves
from services.console.domain import Permission
from services.console.lists import training
from services.console.rules import awaits_approval, compare_plan, word
from services.console.web.access import ConsoleOf, SignedIn, StillSignedIn, needs
from services.console.web.charts import choose_steps, overlay
from services.console.web.notices import NOTICES
from services.console.web.streams import Event
from tailor.api.training.v1.training_pb2 import LogLine, WatchRunResponse
from tailor.wire import to_datetime

router = APIRouter()

RunIds = Annotated[list[Annotated[str, Query(max_length=64)]], Query(max_length=50)]
Word = Annotated[str, Query(max_length=64)]


@router.get("/runs", dependencies=[Depends(needs(Permission.RUNS))])
def runs(request: Request, console: ConsoleOf, visitor: SignedIn) -> Response:
    """The queue, and all runs, newest first."""
    answer = training.list_runs(console.services, visitor, request.query_params)
    queue = handlers.list_runs(console.services, visitor)
    return console.renderer.page(
        request,
        "runs.html",
        view=answer.value,
        waiting=queue.value.waiting,
        awaiting=[run for run in queue.value.page.items if awaits_approval(run)],
        max_runs=run_curves.MAX_RUNS,
        failures=dict.fromkeys(answer.failures + queue.failures),
    )


@router.get("/runs/compare", dependencies=[Depends(needs(Permission.RUNS))])
def compare(  # noqa: PLR0917 - fields of a query
    request: Request,
    console: ConsoleOf,
    visitor: SignedIn,
    run: RunIds = [],  # noqa: B006 - FastAPI copies it
    method: Word = "",
    figure: Word = "loss",
) -> Response:
    """The curves of several runs in one chart, and the same values in a table."""
    answer = run_curves.compare_runs(console.services, visitor, run, method, figure)
    return console.renderer.page(
        request,
        "run_comparison.html",
        comparison=answer.value,
        chart=overlay([curve.points for curve in answer.value.curves]),
        names=run_curves.FIGURES,
        steps=choose_steps([curve.points for curve in answer.value.curves]),
        failures=answer.failures,
    )


@router.get("/runs/{run_id}", dependencies=[Depends(needs(Permission.RUNS))])
def run(request: Request, console: ConsoleOf, visitor: SignedIn, run_id: str, notice: str = "") -> Response:
    """One run: stages, plan and actual, charts and logs."""
    answer = handlers.get_run(console.services, visitor, run_id)
    return console.renderer.page(
        request,
        "run.html",
        run=answer.value,
        run_id=run_id,
        notice=NOTICES.get(notice),
        figures=compare_plan(answer.value, datetime.now(UTC)) if answer.value else (),
        failures=answer.failures,
    )


@router.get("/api/runs/{run_id}/events", dependencies=[Depends(needs(Permission.RUNS))])
def watch(console: ConsoleOf, visitor: SignedIn, still: StillSignedIn, run_id: str) -> Response:
    """A run's reports and its workers' logs, from the first one until the run ends."""
    return console.streams.respond(visitor, handlers.watch_run(console.services, visitor, run_id), run_event, still)


def run_event(update: WatchRunResponse) -> Event:
    """The run's state and progress, and its workers' new log lines."""
    run = update.run
    return (
        "run",
        {
            "state": word(run, "state"),
            "reason": run.reason,
            "message": run.message,
            "epoch": run.epoch,
            "stage": run.stage,
            "progress": _values(run.progress) if run.HasField("progress") else None,
            "lines": [_line(line) for line in update.log_lines],
        },
    )


def _values(message: Message) -> dict[str, object]:
    """The message's plain fields; null for an optional field that is not set."""
    fields = [field for field in message.DESCRIPTOR.fields if field.message_type is None]
    is_set = {field.name: not field.has_presence or message.HasField(field.name) for field in fields}
    return {name: getattr(message, name) if known else None for name, known in is_set.items()}


def _line(line: LogLine) -> dict[str, str]:
    time = to_datetime(line.create_time).strftime("%H:%M:%S") if line.HasField("create_time") else ""
    return {"time": time, "level": line.level, "message": line.message, "worker": str(line.epoch)}
