"""What passes the gate and serves, by itself or by hand. Each opens one transaction; what it states is sent when that commits."""

from collections.abc import Iterable
from datetime import UTC, datetime

from services.registry.comparing import Canary, CanaryRules, Outcome
from services.registry.domain import Adapter, Evaluator, Specialist
from services.registry.gate import Decision, Evaluation, refusals
from services.registry.handlers import Begin, Transaction, held_specialist
from services.registry.serving import Serving, can_be_tried, next_serving, with_canary
from tailor.errors import Aborted, FailedPrecondition, NotFound, Reason

RETIRED = "retired: it learned from a document that was erased"


def record_evaluation(begin: Begin, evaluator: Evaluator, evaluation: Evaluation) -> Decision:
    """Let the gate decide and promote, once per evaluation; a candidate whose incumbent moved is measured again."""
    with begin() as tx:
        specialist = tx.lock_specialist(evaluation.specialist)
        adapter = tx.adapter(evaluation.adapter_digest)
        if specialist is None or adapter is None:
            # The facts of other topics arrive in their own order: wait for them.
            raise Aborted(Reason.NOT_CATALOGUED_YET, "The evaluation's specialist or adapter is not catalogued yet.")
        decided = tx.decision(evaluation.evaluation_id)
        if decided is None:
            decided = _decide(tx, specialist, adapter, evaluation)
    if decided is Decision.STALE:
        evaluator.evaluate(evaluation.adapter_digest, f"stale-{evaluation.evaluation_id}")
    return decided


def _decide(tx: Transaction, specialist: Specialist, adapter: Adapter, evaluation: Evaluation) -> Decision:
    current = tx.serving(specialist.name)
    why = refusals(specialist.gate, evaluation)
    if is_retired(tx, adapter.digest):
        why = (*why, RETIRED)
    decision = Decision.REFUSED if why else Decision.PASSED
    moved = current.generation != evaluation.incumbent_generation
    # A canary moves the generation; what the adapter was measured beside may serve still.
    if moved and current.adapter_digest not in (adapter.digest, evaluation.incumbent_digest):
        decision = Decision.STALE
    tx.save_evaluation(evaluation, decision, why)
    if decision is Decision.PASSED and current.adapter_digest != adapter.digest:
        _admit(tx, specialist, adapter, current)
    return decision


def _admit(tx: Transaction, specialist: Specialist, adapter: Adapter, current: Serving) -> None:
    """Let what passed the gate serve: all callers, or a share of them first, or not before the canary that runs has ended."""
    rules = specialist.canary
    if rules is None or not can_be_tried(current, adapter):
        serving = next_serving(current, adapter, specialist, current.generation)
        save_serving(tx, serving, "another adapter passed the gate")
    elif current.canary is None:
        begin_canary(tx, with_canary(current, adapter, specialist, rules.percent, current.generation), adapter, rules)
    elif current.canary.adapter_digest != adapter.digest:
        tx.let_wait(specialist.name, adapter.digest)


def begin_canary(tx: Transaction, serving: Serving, adapter: Adapter, rules: CanaryRules) -> None:
    """Keep and state that a share of the callers gets an adapter from now on."""
    tx.save_serving(serving)
    tx.start_canary(Canary(serving.specialist, serving.generation, adapter.digest, rules, datetime.now(UTC)))


def save_serving(tx: Transaction, serving: Serving, why: str, outcome: Outcome = Outcome.ENDED) -> None:
    """Keep and state what serves all callers from now on; a canary that ran has ended so, and why."""
    tx.save_serving(serving)
    tx.end_canary(serving.specialist, outcome, why)


def promote(begin: Begin, name: str, adapter_digest: str, expected_generation: int) -> Serving:
    """Make an adapter serve, if its newest evaluation meets the gate."""
    with begin() as tx:
        specialist = held_specialist(tx, name)
        adapter, _ = admitted(tx, specialist, adapter_digest)
        serving = next_serving(tx.serving(name), adapter, specialist, expected_generation)
        save_serving(tx, serving, "an adapter was promoted by hand")
        return serving


def admitted(tx: Transaction, specialist: Specialist, adapter_digest: str) -> tuple[Adapter, Evaluation]:
    """An adapter whose newest evaluation meets the gate, and that evaluation; FailedPrecondition where it does not."""
    adapter = tx.adapter(adapter_digest)
    if adapter is None:
        raise NotFound(Reason.UNKNOWN_ADAPTER, "There is no such adapter; `tailor adapters` lists them.")
    evaluation = tx.newest_evaluation(adapter_digest)
    if is_retired(tx, adapter_digest):
        raise FailedPrecondition(Reason.ADAPTER_RETIRED, f"The adapter is {RETIRED}.")
    if evaluation is None:
        raise FailedPrecondition(Reason.NOT_EVALUATED, "The adapter was not evaluated; `tailor evaluate` measures it.")
    why = refusals(specialist.gate, evaluation)
    if why:
        raise FailedPrecondition(Reason.GATE_NOT_MET, f"The gate is not met: {'; '.join(why)}.")
    return adapter, evaluation


def rollback(begin: Begin, name: str, expected_generation: int) -> Serving:
    """Make what served before serve again; the base, if nothing did."""
    with begin() as tx:
        specialist = held_specialist(tx, name)
        current = tx.serving(name)
        if current.generation == 0 or not current.adapter_digest:
            raise FailedPrecondition(Reason.NOTHING_TO_ROLL_BACK, "The base serves: there is nothing to go back from.")
        previous = not_retired(tx, [current.previous_digest] if current.previous_digest else [])
        serving = next_serving(current, previous, specialist, expected_generation)
        save_serving(tx, serving, "what served was rolled back")
        return serving


def is_retired(tx: Transaction, adapter_digest: str) -> bool:
    """True where an adapter may never serve again."""
    taint = tx.tainted(adapter_digest)
    return taint is not None and taint.retired


def not_retired(tx: Transaction, digests: Iterable[str]) -> Adapter | None:
    """The first adapter that is not retired; None, the base, where there is none."""
    return next((tx.adapter(digest) for digest in digests if digest and not is_retired(tx, digest)), None)
