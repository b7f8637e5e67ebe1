"""`tailor adapter approvals`, `approve`, `decline` and `decisions`: what waits for an operator, and what operators decided."""

from typing import Annotated

import typer
from rich.console import Console

from tailor.api.registry.v1 import registry_pb2
from tailor.cli.adapters import AdapterName
from tailor.cli.calls import REASON_SECONDS, adapter_digest, first, pages, unary
from tailor.cli.columns import columns, emit_items
from tailor.cli.figures import decision_of, figures_table, print_adapter
from tailor.cli.messages import to_dict
from tailor.cli.output import short, shows
from tailor.cli.session import CommandSession

SpecialistOption = Annotated[str, typer.Option(help="Only those of this specialist.")]


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
