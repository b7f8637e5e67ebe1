"""`tailor adapter`: list and evaluate adapters, and decide which one serves."""

import time
from typing import Annotated

import typer

from tailor.api.evaluation.v1 import evaluation_pb2
from tailor.api.events.v1 import models_pb2
from tailor.api.registry.v1 import registry_pb2, registry_pb2_grpc
from tailor.cli.calls import REASON_SECONDS, TIMEOUT_SECONDS, adapter_digest, first, pages
from tailor.cli.figures import describe_adapter, figures_table
from tailor.cli.options import AdapterName, Generation, Limit, SpecialistName, Wait, listed
from tailor.cli.options import Reason as ReasonText
from tailor.cli.output import bold, short
from tailor.cli.session import CommandSession
from tailor.cli.tables import emit_list, emit_pages
from tailor.errors import Aborted, DeadlineExceeded, FailedPrecondition, Reason
from tailor.events.envelope import new_id
from tailor.list_columns import ADAPTERS, DECISIONS


@listed
def list_adapters(session: CommandSession, request: registry_pb2.ListAdaptersRequest, limit: Limit = 50) -> None:
    """List adapters, newest first, with the state of each, its reasons, and what can be done next."""
    items = first(limit, pages(session.connections.registry.ListAdapters, request))
    emit_list(session, items, SHOWN, document={"adapters": items}, remarks=map(describe_adapter, items))


def evaluate(session: CommandSession, adapter: AdapterName) -> None:
    """Measure an adapter again, in the background. `tailor adapter list` shows the result."""
    digest = adapter_digest(session.connections.registry, adapter)
    request = evaluation_pb2.EvaluateRequest(adapter_digest=digest, request_id=new_id("req"))
    answer = session.connections.evaluation.Evaluate(request)
    session.output.emit(answer, f"Evaluation {answer.evaluation_id} of {short(digest)} has started.")


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
    answer = registry.Promote(request, timeout=REASON_SECONDS if override else TIMEOUT_SECONDS)
    if wait:
        wait_for_rollout(registry, answer.serving)
    session.output.emit(answer, _serves(answer.serving))


def rollback(
    session: CommandSession, specialist: SpecialistName, generation: Generation = None, wait: Wait = False
) -> None:
    """Make the previous adapter serve the specialist again."""
    registry = session.connections.registry
    expected = expected_generation(registry, specialist, generation)
    answer = registry.Rollback(registry_pb2.RollbackRequest(specialist=specialist, expected_generation=expected))
    if wait:
        wait_for_rollout(registry, answer.serving)
    session.output.emit(answer, _serves(answer.serving))


def expected_generation(
    registry: registry_pb2_grpc.RegistryServiceStub, specialist: str, generation: int | None
) -> int:
    """The generation to expect: the given one, or else the current one."""
    if generation is not None:
        return generation
    answer = registry.GetSpecialist(registry_pb2.GetSpecialistRequest(name=specialist))
    return answer.serving.decision.generation


def _serves(serving: models_pb2.SpecialistServing) -> str:
    model = short(serving.adapter_digest) if serving.adapter_digest else "the base"
    why = ", by an override" if serving.overridden else ""
    return f"{serving.specialist} is served by {model} since generation {serving.generation}{why}."


SHOWN = ADAPTERS.pick("adapter, specialist, documents, rankings, round, loss, state, serves")


@listed
def approvals(session: CommandSession, request: registry_pb2.ListApprovalsRequest) -> None:
    """List the adapters that passed the gate and wait for approval, with the figures that decide.

    Only specialists with `promotion = "approval"` wait. Others promote an adapter that passes at once.
    """
    items = list(pages(session.connections.registry.ListApprovals, request))
    parts = (
        (
            bold(short(item.adapter.digest), f" of {item.adapter.specialist}"),
            figures_table(item.evaluation),
            describe_adapter(item),
        )
        for item in items
    )
    session.output.emit({"adapters": items}, parts if items else "Nothing waits for approval.")


def approve(session: CommandSession, adapter: AdapterName, reason: ReasonText = "") -> None:
    """Let a waiting adapter serve, or start its canary if the specialist has one."""
    registry = session.connections.registry
    request = registry_pb2.ApproveAdapterRequest(adapter_digest=adapter_digest(registry, adapter), reason=reason)
    answer = registry.ApproveAdapter(request, timeout=REASON_SECONDS)
    serving = answer.serving
    is_canary = serving.canary.adapter_digest == request.adapter_digest
    share = f"{serving.canary.percent} % of the callers of " if is_canary else "All callers of "
    text = f"{share}{serving.specialist} get {short(request.adapter_digest)} since generation {serving.generation}."
    session.output.emit(answer, text)


def decline(session: CommandSession, adapter: AdapterName, reason: ReasonText) -> None:
    """End an adapter's wait without a promotion."""
    registry = session.connections.registry
    request = registry_pb2.DeclineAdapterRequest(adapter_digest=adapter_digest(registry, adapter), reason=reason)
    answer = registry.DeclineAdapter(request, timeout=REASON_SECONDS)
    name = short(request.adapter_digest)
    text = f"{name} is declined. `tailor adapter promote NAME {name}` can still make it serve."
    session.output.emit(answer, text)


@listed
def decisions(session: CommandSession, request: registry_pb2.ListDecisionsRequest, limit: Limit = 50) -> None:
    """List operators' decisions, newest first: overrides of the gate, approvals, declined adapters, and deletions."""
    emit_pages(session, session.connections.registry.ListDecisions, request, DECISIONS, limit)


POLL_SECONDS = 0.3
WAIT_SECONDS = 300.0


def wait_for_rollout(
    registry: registry_pb2_grpc.RegistryServiceStub,
    decision: models_pb2.SpecialistServing,
    seconds: float = WAIT_SECONDS,
) -> None:
    """Block until every ready replica serves the decision's generation.

    Raises FailedPrecondition if a replica refuses it, Aborted if a newer generation replaces it, DeadlineExceeded after `seconds`.
    """
    end = time.monotonic() + seconds
    request = registry_pb2.GetSpecialistRequest(name=decision.specialist)
    generation = decision.generation
    while True:
        serving = registry.GetSpecialist(request).serving
        if serving.decision.generation > generation:
            text = f"Generation {serving.decision.generation} replaced generation {generation} during the rollout."
            raise Aborted(Reason.GENERATION_MOVED, text)
        if serving.finished:
            return
        refusals = [f"{replica.replica} ({replica.reason})" for replica in serving.rollout if replica.reason]
        if refusals:
            text = f"Generation {generation} is refused by {', '.join(refusals)}; these replicas keep the previous adapter."
            if any(replica.reason == Reason.UNSUPPORTED_ADAPTER for replica in serving.rollout):
                text += f" Serve it as a base: `tailor model add NAME adapter:{decision.adapter_digest}`, then docs/inference/bases.md."
            raise FailedPrecondition(Reason.ROLLOUT_REFUSED, text)
        if time.monotonic() >= end:
            waiting = ", ".join(replica.replica for replica in serving.rollout if not replica.serving)
            text = f"After {seconds:g} s, generation {generation} is not served by {waiting or 'any replica; none is ready'}."
            raise DeadlineExceeded(Reason.ROLLOUT_UNFINISHED, text)
        time.sleep(POLL_SECONDS)
