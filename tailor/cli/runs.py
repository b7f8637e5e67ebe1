"""`tailor runs`: list, show, watch and cancel runs."""

from collections.abc import Iterator
from typing import Annotated

import typer
from rich.console import Console

from tailor.api.registry.v1 import registry_pb2
from tailor.api.training.v1 import training_pb2, training_pb2_grpc
from tailor.cli.calls import first, pages, unary
from tailor.cli.messages import short_enum, to_dict
from tailor.cli.output import short, shows, table
from tailor.cli.session import Session, session_of
from tailor.errors import FailedPrecondition
from tailor.events.envelope import new_id
from tailor.rpc.status import wire_errors

app = typer.Typer(help="Look at, watch, start and cancel training runs.", no_args_is_help=True)

RunId = Annotated[str, typer.Argument(help="The run's id.")]
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
    """Show one run."""
    session = session_of(context)
    request = training_pb2.GetRunRequest(run_id=run_id)
    run = unary("training", session.connections.training.GetRun, request).run
    _emit(session, run)


@app.command()
def watch(context: typer.Context, run_id: RunId) -> None:
    """Follow a run until it ends; exit status 1 where it ends without an adapter."""
    session = session_of(context)
    run = training_pb2.Run()
    for run in reports(session.connections.training, run_id):
        session.output.notes.print(describe(run), highlight=False)
    _emit(session, run)
    if run.state in FAILED:
        raise FailedPrecondition(run.reason or "RUN_FAILED", run.message or "The run ended without an adapter.")


@app.command()
def cancel(context: typer.Context, run_id: RunId) -> None:
    """End a run that has not ended."""
    session = session_of(context)
    request = training_pb2.CancelRunRequest(run_id=run_id)
    _emit(session, unary("training", session.connections.training.CancelRun, request).run)


@app.command()
def create(
    context: typer.Context,
    specialist: Annotated[str, typer.Argument(help="The specialist's name.")],
    dataset: Annotated[str, typer.Argument(help="The dataset's whole digest; see `tailor datasets --json`.")],
    recipe: Annotated[str, typer.Option(help="A recipe; the specialist's own if none.")] = "",
    base: Annotated[str, typer.Option(help="A base; the specialist's own if none.")] = "",
) -> None:
    """Queue a run by hand. The same specialist, dataset, recipe and base return the run that exists."""
    session = session_of(context)
    ask = registry_pb2.GetSpecialistRequest(name=specialist)
    definition = unary("registry", session.connections.registry.GetSpecialist, ask).specialist
    request = training_pb2.CreateRunRequest(
        specialist=specialist,
        dataset_digest=dataset,
        base=base or definition.base,
        recipe=recipe or definition.recipe,
        request_id=new_id("req"),
    )
    _emit(session, unary("training", session.connections.training.CreateRun, request).run)


def reports(training: training_pb2_grpc.TrainingServiceStub, run_id: str) -> Iterator[training_pb2.Run]:
    """The run at every report, from the first one to its end."""
    with wire_errors("training"):
        call = training.WatchRun(training_pb2.WatchRunRequest(run_id=run_id))
        try:
            for response in call:
                yield response.run
        finally:
            call.cancel()  # type: ignore[no-untyped-call]


def state_of(run: training_pb2.Run) -> str:
    """The state as a word."""
    return short_enum(training_pb2.RunState.Name(run.state), "RUN_STATE_")


def describe(run: training_pb2.Run) -> str:
    """Where a run stands, in one line."""
    if run.state != training_pb2.RUN_STATE_RUNNING or not run.HasField("progress"):
        return " ".join(filter(None, (state_of(run), run.reason, run.message)))
    at = run.progress
    if at.phase != "training":
        return at.phase
    return (
        f"step {at.step}/{at.total_steps}, loss {at.loss:.3f}, {at.tokens_per_second:.0f} tokens/s, "
        f"{max(0, round(at.remaining_seconds))} s left"
    )


def _emit(session: Session, run: training_pb2.Run) -> None:
    def render(console: Console) -> None:
        console.print(f"[bold]{run.run_id}[/] of {run.specialist} on dataset {short(run.dataset_digest)}")
        console.print(f"{run.base}, recipe {run.recipe}: {state_of(run)}, worker {run.epoch}")
        console.print(describe(run))
        if run.adapter_digest:
            console.print(f"adapter {run.adapter_digest}")

    session.output.emit(to_dict(run), render)
