"""`tailor adapter`: list and evaluate adapters, and decide which one serves."""

from typing import Annotated

import typer
from rich.console import Console

from tailor.api.evaluation.v1 import evaluation_pb2
from tailor.api.events.v1 import models_pb2
from tailor.api.registry.v1 import registry_pb2, registry_pb2_grpc
from tailor.cli.calls import REASON_SECONDS, TIMEOUT_SECONDS, adapter_digest, first, pages, unary
from tailor.cli.columns import columns, emit_items
from tailor.cli.figures import decision_of, figures_table, print_adapter
from tailor.cli.messages import to_dict
from tailor.cli.output import short, shows
from tailor.cli.rollout import wait_for_rollout
from tailor.cli.session import CommandSession
from tailor.cli.whole_words import Digest
from tailor.events.envelope import new_id

SpecialistName = Annotated[str, typer.Argument(metavar="SPECIALIST", help="The specialist's name.")]
AdapterName = Annotated[
    str, typer.Argument(metavar="ADAPTER", help="The adapter's digest, or at least its first 6 digits.")
]
Generation = Annotated[
    int | None,
    typer.Option(
        "--expected-generation", min=0, help="Fail unless this generation serves; by default, the current one."
    ),
]

SpecialistOption = Annotated[str, typer.Option(help="Only those of this specialist.")]
Wait = Annotated[bool, typer.Option("--wait", help="Wait until every ready replica serves the change.")]


def list_adapters(
    session: CommandSession,
    specialist: Annotated[str, typer.Option(help="List only adapters of this specialist.")] = "",
    limit: Annotated[int, typer.Option(min=1, help="Max adapters to list.")] = 50,
) -> None:
    """List adapters, newest first, with the state of each, its reasons, and what can be done next."""
    request = registry_pb2.ListAdaptersRequest(specialist=specialist)
    items = first(limit, pages("registry", session.connections.registry.ListAdapters, request, "adapters"))

    def print_reasons(console: Console) -> None:
        for item in items:
            print_adapter(console, item)

    emit_items(session, "adapters", items, COLUMNS, print_reasons)


def evaluate(session: CommandSession, adapter: AdapterName) -> None:
    """Measure an adapter again, in the background. `tailor adapter list` shows the result."""
    digest = adapter_digest(session.connections.registry, adapter)
    request = evaluation_pb2.EvaluateRequest(adapter_digest=digest, request_id=new_id("req"))
    answer = unary("evaluation", session.connections.evaluation.Evaluate, request)
    session.output.emit(to_dict(answer), shows(f"Evaluation {answer.evaluation_id} of {short(digest)} has started."))


def promote(
    session: CommandSession,
    specialist: SpecialistName,
    adapter: AdapterName,
    generation: Generation = None,
    *,
    wait: Wait = False,
    override: Annotated[
        bool, typer.Option("--override", help="Promote it although it did not pass the gate. Needs --reason.")
    ] = False,
    reason: Annotated[
        str, typer.Option(metavar="TEXT", help="Why the gate is overridden. Stays on record, without personal data.")
    ] = "",
) -> None:
    """Make an adapter serve the specialist, if its evaluation met the gate or an operator overrides it.

    Retired adapters, adapters without an evaluation, and adapters that memorised texts cannot be promoted by an override.
    """
    if override != bool(reason.strip()):
        raise typer.BadParameter("--override and --reason go together.")
    registry = session.connections.registry
    request = registry_pb2.PromoteRequest(
        specialist=specialist,
        adapter_digest=adapter_digest(registry, adapter),
        expected_generation=expected_generation(registry, specialist, generation),
        override=override,
        reason=reason,
    )
    answer = unary("registry", registry.Promote, request, REASON_SECONDS if override else TIMEOUT_SECONDS)
    if wait:
        wait_for_rollout(registry, answer.serving)
    session.output.emit(to_dict(answer), shows(_serves(answer.serving)))


def rollback(
    session: CommandSession, specialist: SpecialistName, generation: Generation = None, wait: Wait = False
) -> None:
    """Make the previous adapter serve the specialist again."""
    registry = session.connections.registry
    expected = expected_generation(registry, specialist, generation)
    request = registry_pb2.RollbackRequest(specialist=specialist, expected_generation=expected)
    answer = unary("registry", registry.Rollback, request)
    if wait:
        wait_for_rollout(registry, answer.serving)
    session.output.emit(to_dict(answer), shows(_serves(answer.serving)))


def expected_generation(
    registry: registry_pb2_grpc.RegistryServiceStub, specialist: str, generation: int | None
) -> int:
    """The generation to expect: the given one, or else the current one."""
    if generation is not None:
        return generation
    answer = unary("registry", registry.GetSpecialist, registry_pb2.GetSpecialistRequest(name=specialist))
    return answer.serving.decision.generation


def _serves(serving: models_pb2.SpecialistServing) -> str:
    model = short(serving.adapter_digest) if serving.adapter_digest else "the base"
    why = ", by an override" if serving.overridden else ""
    return f"{serving.specialist} is served by {model} since generation {serving.generation}{why}."


def _where(item: registry_pb2.CatalogueAdapter) -> str:
    if item.canary_percent:
        return f"{item.canary_percent} % of the callers"
    return f"on {item.serving_replicas} of {item.ready_replicas}" if item.serving else ""


def _documents(adapter: models_pb2.AdapterTrained) -> Digest:
    alone = "" if adapter.preference_dataset_digest else adapter.dataset_digest
    return Digest(adapter.sft_dataset_digest or alone)


COLUMNS = columns(
    "adapter=adapter.digest",
    "specialist=adapter.specialist",
    ("documents", lambda item: _documents(item.adapter)),
    "rankings=adapter.preference_dataset_digest",
    ("round", lambda item: item.adapter.round or ""),
    ("loss", lambda item: f"{item.adapter.first_loss:.2f} to {item.adapter.last_loss:.2f}"),
    "state",
    ("serves", lambda item: _where(item) + (" tainted" if item.tainted else "")),
)


def approvals(session: CommandSession, specialist: SpecialistOption = "") -> None:
    """List the adapters that passed the gate and wait for approval, with the figures that decide.

    Only specialists with `promotion = "approval"` wait. Others promote an adapter that passes at once.
    """
    request = registry_pb2.ListApprovalsRequest(specialist=specialist)
    items = list(pages("registry", session.connections.registry.ListApprovals, request, "adapters"))

    def render(console: Console) -> None:
        if not items:
            console.print("Nothing waits for approval.")
        for item in items:
            console.print(f"[bold]{short(item.adapter.digest)}[/] of {item.adapter.specialist}", highlight=False)
            console.print(figures_table(item.evaluation))
            print_adapter(console, item)

    session.output.emit({"adapters": [to_dict(item) for item in items]}, render)


def approve(
    session: CommandSession,
    adapter: AdapterName,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why. Stays on record, without personal data.")] = "",
) -> None:
    """Let a waiting adapter serve, or start its canary if the specialist has one."""
    registry = session.connections.registry
    request = registry_pb2.ApproveAdapterRequest(adapter_digest=adapter_digest(registry, adapter), reason=reason)
    answer = unary("registry", registry.ApproveAdapter, request, REASON_SECONDS)
    serving = answer.serving
    is_canary = serving.canary.adapter_digest == request.adapter_digest
    share = f"{serving.canary.percent} % of the callers of " if is_canary else "All callers of "
    text = f"{share}{serving.specialist} get {short(request.adapter_digest)} since generation {serving.generation}."
    session.output.emit(to_dict(answer), shows(text))


def decline(
    session: CommandSession,
    adapter: AdapterName,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why. Stays on record, without personal data.")],
) -> None:
    """End an adapter's wait without a promotion."""
    registry = session.connections.registry
    request = registry_pb2.DeclineAdapterRequest(adapter_digest=adapter_digest(registry, adapter), reason=reason)
    answer = unary("registry", registry.DeclineAdapter, request, REASON_SECONDS)
    name = short(request.adapter_digest)
    text = f"{name} is declined. `tailor adapter promote NAME {name}` can still make it serve."
    session.output.emit(to_dict(answer), shows(text))


def decisions(
    session: CommandSession,
    specialist: SpecialistOption = "",
    limit: Annotated[int, typer.Option(min=1, help="Max decisions to list.")] = 50,
) -> None:
    """List operators' decisions, newest first: overrides of the gate, approvals, declined adapters, and deletions."""
    request = registry_pb2.ListDecisionsRequest(specialist=specialist)
    items = first(limit, pages("registry", session.connections.registry.ListDecisions, request, "decisions"))
    emit_items(session, "decisions", items, DECISIONS)


DECISIONS = columns(
    "time=create_time",
    "decision=kind",
    "specialist",
    "adapter=adapter_digest",
    ("verdict", lambda item: decision_of(item.verdict) if item.verdict else ""),
    ("key", lambda item: item.key_id or "the console's operator"),
    "reason",
)
