"""Canaries: started and stopped by an operator, or decided by their measured calls."""

from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial

from services.registry.adapters.sql import Begin
from services.registry.domain import Approval, CanaryPolicy, Outcome, Serving
from services.registry.handlers.promotions import moved_incumbent, require_passed, save_canary, save_serving
from services.registry.handlers.specialists import lock_specialist
from services.registry.ports import RequestEvaluation
from services.registry.rules import canary as rules
from services.registry.rules import serving
from tailor.errors import FailedPrecondition, InvalidArgument, Reason, TailorError
from tailor.jobs import HeldJob
from tailor.logging import get_logger

log = get_logger(__name__)

POLL_SECONDS = 2.0
utc_now = partial(datetime.now, UTC)

# The policy of one canary, from its specialist's.
Override = Callable[[CanaryPolicy], CanaryPolicy]


def start_canary(begin: Begin, name: str, adapter_digest: str, expected_generation: int, override: Override) -> Serving:
    """Serve an adapter to a share of the callers.

    Raises FailedPrecondition unless it passed the gate against the current incumbent, Aborted if the generation moved."""
    with begin() as tx:
        specialist = lock_specialist(tx.specialists, name)
        policy = override(specialist.canary or CanaryPolicy())
        violations = rules.find_policy_violations(policy)
        if violations:
            raise InvalidArgument(Reason.INVALID_CANARY, "The canary's policy is invalid.", field_violations=violations)
        current = tx.servings.current(name)
        adapter, evaluation, _ = require_passed(tx, specialist, adapter_digest)
        started = serving.add_canary(current, adapter, specialist, policy.percent, expected_generation)
        if not serving.has_incumbent(current, adapter, tx.facts.list_merged()):
            raise FailedPrecondition(
                Reason.NOTHING_TO_COMPARE,
                "Nothing serves on this adapter's base to compare it with. Promote it instead.",
            )
        if evaluation.incumbent_digest != current.adapter_digest:
            raise moved_incumbent(adapter_digest)
        save_canary(tx, started, adapter, policy)
        tx.approvals.end(adapter_digest, Approval.ENDED)
        return started


def stop_canary(begin: Begin, name: str, expected_generation: int) -> Serving:
    """End the canary; the serving adapter serves all callers. Raises FailedPrecondition if none is running, Aborted as above."""
    with begin() as tx:
        specialist = lock_specialist(tx.specialists, name)
        stopped = serving.remove_canary(tx.servings.current(name), specialist, expected_generation)
        save_serving(tx, stopped, "stopped by an operator", Outcome.BACK)
        return stopped


def withdraw_refused(begin: Begin, name: str, generation: int, reason: str) -> None:
    """End the canary that started with a generation that a replica refuses."""
    with begin() as tx:
        specialist = tx.specialists.lock(name=name)
        current = tx.servings.current(name)
        if specialist is not None and current.canary is not None and current.generation == generation:
            save_serving(tx, serving.remove_canary(current, specialist, generation), reason, Outcome.BACK)


def decide_canary(begin: Begin, job: HeldJob, now: Callable[[], datetime] = utc_now) -> float | None:
    """Promote or withdraw a specialist's canary once its calls and outcomes decide it (a `jobs.Handle`); until then, look again."""
    with begin() as tx:
        job.check(tx.connection)
        specialist = tx.specialists.lock(name=job.key)
        canary = tx.canaries.find_running(job.key)
        if specialist is None or canary is None:
            return None
        canary_arm, incumbent_arm = tx.canaries.measure(canary)
        seconds = (now() - canary.start_time).total_seconds()
        reports = tx.canaries.list_reports(canary)
        verdict = rules.decide_outcome(canary.policy, canary_arm, incumbent_arm, seconds, reports)
        if verdict is None:
            return POLL_SECONDS
        current = tx.servings.current(job.key)
        decided = serving.remove_canary(current, specialist, current.generation)
        if verdict.outcome is Outcome.FORWARD:
            adapter = tx.facts.find_adapter(canary.adapter_digest)
            decided = serving.serve_adapter(current, adapter, specialist, current.generation)
        save_serving(tx, decided, verdict.reason, verdict.outcome)
    log.info("canary decided", specialist=job.key, outcome=verdict.outcome.value)
    return None


def evaluate_deferred(request_evaluation: RequestEvaluation, job: HeldJob) -> None:
    """Request the evaluation of an adapter that waited for the end of a canary (a `jobs.Handle`). Drops one that cannot be evaluated."""
    try:
        request_evaluation(job.key, job.payload["request_id"])
    except TailorError as error:
        if error.retryable:
            raise
        log.warning("not evaluated again", adapter=job.key, reason=error.reason)
