"""Runs: the queue, one run with its plan beside reality, and its stream."""

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response

from services.console import handlers
from services.console.domain import Action, Visitor
from services.console.runs import LogLine, Watched, compared
from services.console.web.access import ConsoleOf, needs
from services.console.web.streams import Event

router = APIRouter()


@router.get("/runs")
def runs(
    request: Request, console: ConsoleOf, visitor: Annotated[Visitor, Depends(needs(Action.RUNS))], token: str = ""
) -> Response:
    """The queue, and runs, newest first."""
    answer = handlers.runs(console.services, visitor, token)
    return console.renderer.page(
        request,
        "runs.html",
        page=answer.value.page,
        waiting=answer.value.waiting,
        token=token,
        failures=answer.failures,
    )


@router.get("/runs/{run_id}")
def run(
    request: Request, console: ConsoleOf, visitor: Annotated[Visitor, Depends(needs(Action.RUNS))], run_id: str
) -> Response:
    """One run: stages, plan beside reality, charts and logs."""
    answer = handlers.run(console.services, visitor, run_id)
    found = answer.value
    return console.renderer.page(
        request,
        "run.html",
        run=found,
        run_id=run_id,
        compared=compared(found, datetime.now(UTC)) if found else (),
        failures=answer.failures,
    )


@router.get("/api/runs/{run_id}/events")
def watch(console: ConsoleOf, visitor: Annotated[Visitor, Depends(needs(Action.RUNS))], run_id: str) -> Response:
    """A run's reports and its workers' logs from the first on, until it ends."""
    return console.streams.respond(handlers.watch(console.services, visitor, run_id), run_event)


def run_event(watched: Watched) -> Event:
    """Where the run stands, and what its workers wrote."""
    run = watched.run
    return (
        "run",
        {
            "state": run.state,
            "reason": run.reason,
            "message": run.message,
            "epoch": run.epoch,
            "stage": run.stage,
            "progress": vars(run.progress) if run.progress else None,
            "lines": [_line(line) for line in watched.lines],
        },
    )


def _line(line: LogLine) -> dict[str, str]:
    at = line.create_time.strftime("%H:%M:%S") if line.create_time else ""
    return {"time": at, "level": line.level, "message": line.message, "worker": str(line.epoch)}
