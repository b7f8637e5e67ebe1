"""`tailor run`: plan, create, approve, list, show, watch and cancel runs."""

from typing import Annotated

import typer

from tailor.api.registry.v1 import registry_pb2
from tailor.api.training.v1 import training_pb2
from tailor.cli import ids
from tailor.cli.calls import adapter_digest, dataset_digest
from tailor.cli.options import Limit, SpecialistName, listed
from tailor.cli.run_views import FAILED, PLAN_SECONDS, describe, describe_line, emit_plan, emit_run
from tailor.cli.session import CommandSession
from tailor.cli.tables import emit_pages
from tailor.columns import columns
from tailor.errors import FailedPrecondition, NotFound, Reason
from tailor.events.envelope import new_id
from tailor.list_columns import RUNS
from tailor.pipelines import list_recipes
from tailor.wire import to_pipeline

RunId = Annotated[str, typer.Argument(help="The run's id, or its first digits.", callback=ids.run_id)]
Dataset = Annotated[
    str, typer.Argument(help="The dataset's digest, or at least its first 6 digits; see `tailor dataset list`.")
]
Recipe = Annotated[str, typer.Option(help="A recipe; by default, the specialist's.")]
Base = Annotated[str, typer.Option(help="A base; by default, the specialist's.")]
Parent = Annotated[
    str, typer.Option(help="The adapter to start from, by at least its first 6 digits; by default, the base.")
]
Preferences = Annotated[
    str,
    typer.Option(
        "--preference-dataset",
        help="The dataset for stages that learn from rankings, by at least its first 6 digits; by default, the next one built.",
    ),
]


SHOWN = columns(None, *RUNS.pick("run, specialist, dataset, recipe, state"), ("at", describe), *RUNS.pick("adapter"))


@listed
def list_runs(session: CommandSession, request: training_pb2.ListRunsRequest, limit: Limit = 50) -> None:
    """List runs, newest first."""
    emit_pages(session, session.connections.training.ListRuns, request, SHOWN, limit)


def show(session: CommandSession, run_id: RunId) -> None:
    """Show one run: its stages with dataset, parent and adapter, its plan next to what it used, and the gate's verdict."""
    run = session.connections.training.GetRun(training_pb2.GetRunRequest(run_id=run_id)).run
    emit_run(session, run, _find_adapter(session, run.adapter_digest))


def watch(
    session: CommandSession,
    run_id: RunId,
    logs: Annotated[bool, typer.Option("--logs", help="Also show the logs of its workers.")] = False,
) -> None:
    """Follow a run until it ends. The exit status is 1 if it ends without an adapter."""
    run = training_pb2.Run()
    for response in session.connections.training.WatchRun(training_pb2.WatchRunRequest(run_id=run_id)):
        run = response.run
        for line in response.log_lines if logs else ():
            session.output.note(describe_line(line))
        if not response.log_lines:
            session.output.note(describe(run))
    emit_run(session, run)
    if run.state in FAILED:
        raise FailedPrecondition(
            Reason(run.reason or Reason.RUN_FAILED), run.message or "The run ended without an adapter."
        )


def cancel(session: CommandSession, run_id: RunId) -> None:
    """Cancel a run that has not ended."""
    emit_run(session, session.connections.training.CancelRun(training_pb2.CancelRunRequest(run_id=run_id)).run)


def approve(session: CommandSession, run_id: RunId) -> None:
    """Start a run that waits for approval, because its forecast is above a limit. The key that approves stays on record."""
    emit_run(session, session.connections.training.ApproveRun(training_pb2.ApproveRunRequest(run_id=run_id)).run)


def plan(
    session: CommandSession,
    specialist: SpecialistName,
    dataset: Dataset,
    *,
    recipe: Recipe = "",
    base: Base = "",
    parent: Parent = "",
    preference_dataset: Preferences = "",
) -> None:
    """Forecast the tokens, memory, time and price of a run, whether it fits, and the difference that its evaluation can show.

    Nothing is queued.
    """
    fields = _complete(
        session, specialist, dataset, recipe=recipe, base=base, parent=parent, preferences=preference_dataset
    )
    request = training_pb2.PlanRunRequest(**fields, started_by_dataset=False)
    plan = session.connections.training.PlanRun(request, timeout=PLAN_SECONDS).plan
    datasets = filter(None, (request.dataset_digest, request.preference_dataset_digest))
    evaluation = registry_pb2.PlanEvaluationRequest(specialist=specialist, dataset_digests=datasets)
    emit_plan(session, plan, session.connections.registry.PlanEvaluation(evaluation))


def create(
    session: CommandSession,
    specialist: SpecialistName,
    dataset: Dataset,
    *,
    recipe: Recipe = "",
    base: Base = "",
    parent: Parent = "",
    preference_dataset: Preferences = "",
    priority: Annotated[int, typer.Option(min=-100, max=100, help="Runs with a higher priority start first.")] = 0,
) -> None:
    """Queue a run and show its plan. If its forecast is above a limit, it waits for `tailor run approve`.

    Idempotent: the same arguments return the existing run. If that run was cancelled or failed, it resumes where it stopped.
    """
    fields = _complete(
        session, specialist, dataset, recipe=recipe, base=base, parent=parent, preferences=preference_dataset
    )
    request = training_pb2.CreateRunRequest(**fields, request_id=new_id("req"), priority=priority)
    emit_run(session, session.connections.training.CreateRun(request, timeout=PLAN_SECONDS).run)


def _complete(
    session: CommandSession, specialist: str, dataset: str, *, recipe: str, base: str, parent: str, preferences: str
) -> dict[str, str]:
    """The fields that plan and create share: digests by their first digits, base and recipe by default the specialist's."""
    registry = session.connections.registry
    definition = registry.GetSpecialist(registry_pb2.GetSpecialistRequest(name=specialist)).specialist
    return {
        "specialist": specialist,
        "dataset_digest": dataset_digest(registry, dataset),
        "base": base or definition.base,
        "recipe": recipe or (list_recipes(to_pipeline(definition)) if preferences else definition.recipe),
        "parent_digest": adapter_digest(registry, parent) if parent else "",
        "preference_dataset_digest": dataset_digest(registry, preferences) if preferences else "",
    }


def _find_adapter(session: CommandSession, digest: str) -> registry_pb2.CatalogueAdapter | None:
    """A run's adapter; None without one, or if the registry does not know it yet."""
    if not digest:
        return None
    try:
        return session.connections.registry.GetAdapter(registry_pb2.GetAdapterRequest(digest=digest)).adapter
    except NotFound:
        return None
