"""The gate's decisions, promotions, approvals and rollbacks."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime

from services.registry.adapters.sql import Begin, Transaction
from services.registry.domain import (
    APPROVAL,
    Adapter,
    AdapterState,
    Approval,
    Canary,
    CanaryPolicy,
    Decision,
    DecisionKind,
    Evaluation,
    Justification,
    OperatorDecision,
    Outcome,
    Serving,
    Specialist,
    Verdict,
)
from services.registry.handlers.specialists import lock_specialist
from services.registry.ports import RequestEvaluation
from services.registry.rules import serving as rules
from services.registry.rules.gate import decide
from services.registry.rules.overrides import check_override
from services.registry.rules.states import SHORT_DIGEST, advise
from tailor.errors import FailedPrecondition, NotFound, NotYet, Reason

RETIRED = "retired: it was trained on a document that has been erased"
DELETED = "the specialist was deleted"


def record_evaluation(begin: Begin, request_evaluation: RequestEvaluation, evaluation: Evaluation) -> Decision:
    """Decide on an evaluation and promote its adapter if it passes; once per evaluation.

    If the incumbent has changed since, request a new evaluation. Raises NotYet until the specialist and the adapter are catalogued."""
    with begin() as tx:
        specialist = tx.specialists.lock(name=evaluation.specialist)
        adapter = tx.facts.find_adapter(evaluation.adapter_digest)
        if specialist is None or adapter is None:
            raise NotYet(Reason.NOT_CATALOGUED_YET, "The evaluation's specialist or adapter is not catalogued yet.")
        decision = tx.evaluations.find_decision(evaluation.evaluation_id)
        if decision is None:
            decision = _decide(tx, specialist, adapter, evaluation)
    if decision is Decision.STALE:
        request_evaluation(evaluation.adapter_digest, f"stale-{evaluation.evaluation_id}")
    return decision


def _decide(tx: Transaction, specialist: Specialist, adapter: Adapter, evaluation: Evaluation) -> Decision:
    current = tx.servings.current(specialist.name)
    verdict = decide(specialist.gate, evaluation)
    if is_retired(tx, adapter.digest):
        verdict = Verdict(Decision.REFUSED, (RETIRED,))
    if specialist.deleted:
        verdict = Verdict(Decision.REFUSED, (DELETED,))
    moved = current.generation != evaluation.incumbent_generation and not specialist.deleted
    # A canary changes the generation, but the incumbent of the evaluation may still serve.
    if moved and current.adapter_digest not in (adapter.digest, evaluation.incumbent_digest):
        verdict = replace(verdict, decision=Decision.STALE)
    tx.evaluations.upsert(evaluation, decision=verdict.decision, reasons=verdict.reasons)
    if verdict.decision is Decision.PASSED and current.adapter_digest != adapter.digest:
        _admit(tx, specialist, adapter, current)
    return verdict.decision


def _admit(tx: Transaction, specialist: Specialist, adapter: Adapter, current: Serving) -> None:
    """Promote an adapter that passed the gate, or have it wait for an operator's approval."""
    if specialist.promotion == APPROVAL:
        tx.approvals.wait(specialist.name, adapter.digest)
    else:
        _serve(tx, specialist, adapter, current, "another adapter passed the gate")


def _serve(tx: Transaction, specialist: Specialist, adapter: Adapter, current: Serving, reason: str) -> Serving:
    """Serve an adapter at once, by a canary, or after the running canary. Returns what serves now."""
    policy = specialist.canary
    if policy is None or not rules.has_incumbent(current, adapter, tx.facts.list_merged()):
        serving = rules.serve_adapter(current, adapter, specialist, current.generation)
        save_serving(tx, serving, reason)
        return serving
    if current.canary is None:
        serving = rules.add_canary(current, adapter, specialist, policy.percent, current.generation)
        save_canary(tx, serving, adapter, policy)
        return serving
    if current.canary.adapter_digest != adapter.digest:
        tx.canaries.defer(specialist.name, adapter.digest)
    return current


def save_canary(tx: Transaction, serving: Serving, adapter: Adapter, policy: CanaryPolicy) -> None:
    """Store and publish a generation with a new canary."""
    tx.servings.save(serving)
    tx.canaries.start(Canary(serving.specialist, serving.generation, adapter.digest, policy, datetime.now(UTC)))


def save_serving(tx: Transaction, serving: Serving, reason: str, outcome: Outcome = Outcome.ENDED) -> None:
    """Store and publish a generation without a canary, and end the running canary with the outcome and the reason."""
    tx.servings.save(serving)
    tx.canaries.end(serving.specialist, outcome, reason)


def promote(
    begin: Begin, name: str, adapter_digest: str, expected_generation: int, override: Justification | None = None
) -> Serving:
    """Make an adapter serve. Raises FailedPrecondition unless its newest evaluation passes the gate, Aborted if the generation moved.

    With `override`, the gate may refuse the adapter, which is recorded. An adapter that passes anyway is promoted as without it."""
    with begin() as tx:
        specialist = lock_specialist(tx.specialists, name)
        current = tx.servings.current(name)
        if override is None:
            adapter, _, verdict = require_passed(tx, specialist, adapter_digest)
        else:
            adapter, evaluation = require_evaluated(tx, adapter_digest)
            check_override(specialist.gate, evaluation)
            verdict = decide(specialist.gate, evaluation)
        serving = rules.serve_adapter(current, adapter, specialist, expected_generation)
        serving = replace(serving, overridden=verdict.decision is not Decision.PASSED)
        save_serving(tx, serving, "an operator promoted an adapter")
        tx.approvals.end(adapter_digest, Approval.ENDED)
        if override is not None and serving.overridden:
            tx.decisions.insert(_record(DecisionKind.OVERRIDE, serving, adapter, override, verdict))
        return serving


def approve(begin: Begin, adapter_digest: str, justification: Justification) -> Serving:
    """Serve a waiting adapter, or start its canary. Returns what serves now.

    Raises FailedPrecondition if it does not wait, no longer passes the gate, or was evaluated against another incumbent."""
    with begin() as tx:
        specialist = _lock_specialist_of(tx, adapter_digest)
        _require_waiting(tx, adapter_digest)
        current = tx.servings.current(specialist.name)
        adapter, evaluation, verdict = require_passed(tx, specialist, adapter_digest)
        if evaluation.incumbent_digest != current.adapter_digest:
            raise moved_incumbent(adapter_digest)
        if current.canary is not None:
            raise FailedPrecondition(
                Reason.CANARY_RUNS,
                f"A canary is running. Stop it with `tailor canary stop {specialist.name}`, or wait for it to end.",
            )
        serving = _serve(tx, specialist, adapter, current, "an operator approved an adapter")
        tx.approvals.end(adapter_digest, Approval.ENDED)
        tx.decisions.insert(_record(DecisionKind.APPROVAL, serving, adapter, justification, verdict))
        return serving


def decline(begin: Begin, adapter_digest: str, justification: Justification) -> OperatorDecision:
    """End an adapter's wait without a promotion. Raises FailedPrecondition if it does not wait."""
    with begin() as tx:
        specialist = _lock_specialist_of(tx, adapter_digest)
        _require_waiting(tx, adapter_digest)
        evaluation = tx.evaluations.newest(adapter_digest=adapter_digest)
        verdict = decide(specialist.gate, evaluation) if evaluation else None
        tx.approvals.end(adapter_digest, Approval.DECLINED)
        decision = OperatorDecision(
            DecisionKind.DECLINE, specialist.name, justification, datetime.now(UTC), adapter_digest, verdict=verdict
        )
        tx.decisions.insert(decision)
        return decision


def _record(
    kind: DecisionKind, serving: Serving, adapter: Adapter, justification: Justification, verdict: Verdict
) -> OperatorDecision:
    return OperatorDecision(
        kind, serving.specialist, justification, datetime.now(UTC), adapter.digest, serving.generation, verdict
    )


def _lock_specialist_of(tx: Transaction, adapter_digest: str) -> Specialist:
    adapter = tx.facts.find_adapter(adapter_digest)
    if adapter is None:
        raise unknown_adapter()
    return lock_specialist(tx.specialists, adapter.specialist)


def _require_waiting(tx: Transaction, adapter_digest: str) -> None:
    if tx.approvals.find_state(adapter_digest) is not Approval.WAITING:
        raise FailedPrecondition(
            Reason.NOT_WAITING,
            "The adapter does not wait for approval. `tailor adapter approvals` lists those that do.",
        )


def moved_incumbent(adapter_digest: str) -> FailedPrecondition:
    return FailedPrecondition(
        Reason.INCUMBENT_MOVED,
        "The adapter was evaluated against a different incumbent. "
        f"Evaluate it again with `tailor adapter evaluate {adapter_digest[:SHORT_DIGEST]}`.",
    )


def unknown_adapter() -> NotFound:
    return NotFound(Reason.UNKNOWN_ADAPTER, "This adapter does not exist. `tailor adapter list` lists the known ones.")


def require_evaluated(tx: Transaction, adapter_digest: str) -> tuple[Adapter, Evaluation]:
    """An adapter that may serve, and its newest evaluation. Raises FailedPrecondition for a retired or unevaluated one."""
    adapter = tx.facts.find_adapter(adapter_digest)
    if adapter is None:
        raise unknown_adapter()
    evaluation = tx.evaluations.newest(adapter_digest=adapter_digest)
    if is_retired(tx, adapter_digest):
        raise FailedPrecondition(Reason.ADAPTER_RETIRED, f"The adapter is {RETIRED}.")
    if evaluation is None:
        raise FailedPrecondition(
            Reason.NOT_EVALUATED,
            f"The adapter has not been evaluated. Evaluate it with `tailor adapter evaluate {adapter_digest[:SHORT_DIGEST]}`.",
        )
    return adapter, evaluation


def require_passed(tx: Transaction, specialist: Specialist, adapter_digest: str) -> tuple[Adapter, Evaluation, Verdict]:
    """An adapter, its newest evaluation and the gate's verdict. Raises FailedPrecondition unless the verdict is that it passed."""
    adapter, evaluation = require_evaluated(tx, adapter_digest)
    verdict = decide(specialist.gate, evaluation)
    if verdict.decision is not Decision.PASSED:
        advice = advise(AdapterState(verdict.decision.value), specialist.name, adapter_digest)
        raise FailedPrecondition(
            Reason.GATE_NOT_MET,
            f"The gate's verdict is {verdict.decision.value}: {'. '.join(verdict.reasons)}. {advice}.",
        )
    return adapter, evaluation, verdict


def roll_back(begin: Begin, name: str, expected_generation: int) -> Serving:
    """Make the previous adapter serve again, or the base. Raises FailedPrecondition if the base serves, Aborted as in `promote`."""
    with begin() as tx:
        specialist = lock_specialist(tx.specialists, name)
        current = tx.servings.current(name)
        if current.generation == 0 or not current.adapter_digest:
            raise FailedPrecondition(
                Reason.NOTHING_TO_ROLL_BACK, "The base is serving, so there is nothing to roll back."
            )
        previous = find_servable(tx, [current.previous_digest])
        serving = rules.serve_adapter(current, previous, specialist, expected_generation)
        serving = replace(serving, overridden=rules.was_overridden(tx.servings.list(name), previous))
        save_serving(tx, serving, "an operator rolled back")
        return serving


def is_retired(tx: Transaction, adapter_digest: str) -> bool:
    """True if an adapter may never serve again."""
    return tx.lineage.taints.has(adapter_digest=adapter_digest, retired=True)


def find_servable(tx: Transaction, digests: Iterable[str]) -> Adapter | None:
    """The first adapter that is not retired; None means the base."""
    candidates = (digest for digest in digests if digest and not is_retired(tx, digest))
    return next((tx.facts.find_adapter(digest) for digest in candidates), None)
