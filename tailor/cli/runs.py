"""`tailor runs`: plan, create, list, show, watch and cancel runs."""

from collections.abc import Iterator
from typing import Annotated

import typer

from tailor.api.events.v1 import models_pb2
from tailor.api.registry.v1 import registry_pb2
from tailor.api.training.v1 import training_pb2, training_pb2_grpc
from tailor.cli.calls import adapter_digest, first, pages, unary
from tailor.cli.messages import to_dict
from tailor.cli.output import short, shows, table
from tailor.cli.run_views import describe, describe_line, emit_plan, emit_run, state_of
from tailor.cli.session import Session, session_of
from tailor.errors import FailedPrecondition, Reason
from tailor.events.envelope import new_id
from tailor.rpc.status import wire_errors

app = typer.Typer(help="Plan, start, watch, show and cancel training runs.", no_args_is_help=True)

RunId = Annotated[str, typer.Argument(help="The run's id.")]
Specialist = Annotated[str, typer.Argument(help="The specialist's name.")]
Dataset = Annotated[str, typer.Argument(help="The dataset's whole digest; see `tailor datasets --json`.")]
Recipe = Annotated[str, typer.Option(help="A recipe; the specialist's own if none.")]
Base = Annotated[str, typer.Option(help="A base; the specialist's own if none.")]
Parent = Annotated[str, typer.Option(help="An adapter to start from, by its first digits; the base itself if none.")]
Preferences = Annotated[
    str,
    typer.Option(
        "--preference-dataset",
        help="The whole digest of what stages that learn from rankings learn from; the next built if none.",
    ),
]
# A plan is made in a process of its own, which loads libraries first.
PLAN_SECONDS = 330.0
FAILED = (training_pb2.RUN_STATE_FAILED, training_pb2.RUN_STATE_CANCELLED)


@app.command("list")
def list_runs(
    context: typer.Context,
    specialist: Annotated[str, typer.Option(help="Only runs of this specialist.")] = "",
    limit: Annotated[int, typer.Option(min=1, help="Most runs to list.")] = 50,
) -> None:
    """List runs, newest first."""
    session = session_of(context)
    request = training_pb2.ListRunsRequest(specialist=specialist)
    found = first(limit, pages("training", session.connections.training.ListRuns, request, "runs"))
    columns = ("run", "specialist", "dataset", "recipe", "state", "at", "adapter")
    rows = [
        (
            run.run_id,
            run.specialist,
            short(run.dataset_digest),
            run.recipe,
            state_of(run),
            describe(run),
            short(run.adapter_digest),
        )
        for run in found
    ]
    session.output.emit({"runs": [to_dict(run) for run in found]}, shows(table("", columns, rows)))


@app.command()
def show(context: typer.Context, run_id: RunId) -> None:
    """Show one run: its stages with dataset, parent and adapter, and its plan beside what it used."""
    session = session_of(context)
    request = training_pb2.GetRunRequest(run_id=run_id)
    emit_run(session, unary("training", session.connections.training.GetRun, request).run)


@app.command()
def watch(
    context: typer.Context,
    run_id: RunId,
    logs: Annotated[bool, typer.Option("--logs", help="Show its workers' logs as well.")] = False,
) -> None:
    """Follow a run until it ends; exit status 1 where it ends without an adapter."""
    session = session_of(context)
    run = training_pb2.Run()
    for said in _watched(session.connections.training, run_id):
        run = said.run
        for line in said.log_lines if logs else ():
            session.output.notes.print(describe_line(line), highlight=False, markup=False)
        if not said.log_lines:
            session.output.notes.print(describe(run), highlight=False)
    emit_run(session, run)
    if run.state in FAILED:
        raise FailedPrecondition(
            Reason(run.reason or Reason.RUN_FAILED), run.message or "The run ended without an adapter."
        )


@app.command()
def cancel(context: typer.Context, run_id: RunId) -> None:
    """End a run that has not ended."""
    session = session_of(context)
    request = training_pb2.CancelRunRequest(run_id=run_id)
    emit_run(session, unary("training", session.connections.training.CancelRun, request).run)


@app.command()
def plan(
    context: typer.Context,
    specialist: Specialist,
    dataset: Dataset,
    *,
    recipe: Recipe = "",
    base: Base = "",
    parent: Parent = "",
    preference_dataset: Preferences = "",
) -> None:
    """Say what a run would take, and whether it fits; nothing is loaded or queued."""
    session = session_of(context)
    definition = _definition(session, specialist)
    request = training_pb2.PlanRunRequest(
        specialist=specialist,
        dataset_digest=dataset,
        base=base or definition.base,
        recipe=recipe or definition.recipe,
        parent_digest=_parent(session, parent, specialist),
        preference_dataset_digest=preference_dataset,
    )
    emit_plan(session, unary("training", session.connections.training.PlanRun, request, PLAN_SECONDS).plan)


@app.command()
def create(
    context: typer.Context,
    specialist: Specialist,
    dataset: Dataset,
    *,
    recipe: Recipe = "",
    base: Base = "",
    parent: Parent = "",
    preference_dataset: Preferences = "",
    priority: Annotated[int, typer.Option(min=-100, max=100, help="The highest goes first.")] = 0,
) -> None:
    """Queue a run by hand, and show its plan. What was asked for in the same words before is the run that exists; one that was cancelled or
    failed goes on where it stopped."""
    session = session_of(context)
    definition = _definition(session, specialist)
    request = training_pb2.CreateRunRequest(
        specialist=specialist,
        dataset_digest=dataset,
        base=base or definition.base,
        recipe=recipe or definition.recipe,
        request_id=new_id("req"),
        parent_digest=_parent(session, parent, specialist),
        preference_dataset_digest=preference_dataset,
        priority=priority,
    )
    emit_run(session, unary("training", session.connections.training.CreateRun, request, PLAN_SECONDS).run)


def _parent(session: Session, digits: str, specialist: str) -> str:
    return adapter_digest(session.connections.registry, digits, specialist) if digits else ""


def _definition(session: Session, specialist: str) -> models_pb2.SpecialistChanged:
    ask = registry_pb2.GetSpecialistRequest(name=specialist)
    return unary("registry", session.connections.registry.GetSpecialist, ask).specialist


def reports(training: training_pb2_grpc.TrainingServiceStub, run_id: str) -> Iterator[training_pb2.Run]:
    """The run at every report, from the first one to its end."""
    for said in _watched(training, run_id):
        if not said.log_lines:
            yield said.run


def _watched(training: training_pb2_grpc.TrainingServiceStub, run_id: str) -> Iterator[training_pb2.WatchRunResponse]:
    with wire_errors("training"):
        call = training.WatchRun(training_pb2.WatchRunRequest(run_id=run_id))
        try:
            yield from call
        finally:
            call.cancel()  # type: ignore[no-untyped-call]
