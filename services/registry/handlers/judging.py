"""The queue of drafts that an expert judges."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

from services.registry.domain import Specialist
from services.registry.handlers.judgements import find_draft
from services.registry.handlers.specialists import unknown_specialist
from services.registry.ports import Begin, Transaction
from services.registry.rules.judging import MAX_DRAFTS, WINDOW, ExpertQueue, make_queue
from tailor.errors import FailedPrecondition, Reason

MayUse = Callable[[str], bool]


def next_pair(begin: Begin, name: str, expert_id: str, may_use: MayUse) -> ExpertQueue:
    """The expert's queue of a specialist; empty if it does not store its drafts' texts.

    Raises NotFound (UNKNOWN_SPECIALIST), FailedPrecondition (JUDGE_NEEDS_KEY).
    """
    since = datetime.now(UTC) - WINDOW
    with begin() as tx:
        specialist = _find_specialist(tx, name, may_use)
        _require_expert(expert_id)
        drafts = tx.judging.list_drafts(name, since, MAX_DRAFTS) if specialist.keep_drafts else ()
        queue = make_queue(expert_id, drafts, tx.judging.list_decisions(name, since))
        return replace(queue, round=tx.judgements.measure_round(specialist, ()))


def skip_pair(begin: Begin, name: str, draft_id: str, expert_id: str, may_use: MayUse) -> None:
    """Leave a draft's prompt out of the expert's queue. Idempotent.

    Raises NotFound (UNKNOWN_SPECIALIST, UNKNOWN_DRAFT), FailedPrecondition (JUDGE_NEEDS_KEY).
    """
    with begin() as tx:
        _find_specialist(tx, name, may_use)
        _require_expert(expert_id)
        draft = find_draft(tx.facts, draft_id, lambda specialist: specialist == name)
        tx.judging.record(expert_id, name, [draft.prompt_digest])


def _find_specialist(tx: Transaction, name: str, may_use: MayUse) -> Specialist:
    specialist = tx.specialists.find(name)
    if specialist is None or not may_use(name):
        raise unknown_specialist()
    return specialist


def _require_expert(expert_id: str) -> None:
    if not expert_id:
        raise FailedPrecondition(
            Reason.JUDGE_NEEDS_KEY,
            "The queue must know who judged what. Sign in with an API key of your own, with the role expert or operator.",
        )
