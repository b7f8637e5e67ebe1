"""The queue of drafts that an expert judges."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

from services.registry.adapters.sql import Begin, Transaction
from services.registry.domain import Judgement, Specialist
from services.registry.handlers.judgements import find_draft
from services.registry.handlers.specialists import unknown_specialist
from services.registry.rules.expert_queue import (
    MAX_DRAFTS,
    MAX_DRAWN_WAITING,
    UNDO_WINDOW,
    WINDOW,
    ExpertDecision,
    ExpertQueue,
    count_drawn,
    make_queue,
)
from tailor.errors import FailedPrecondition, NotFound, Reason
from tailor.values import DatasetKind

MayUse = Callable[[str], bool]


def next_pair(begin: Begin, name: str, expert_id: str, may_use: MayUse) -> ExpertQueue:
    """The expert's queue of a specialist; empty if it does not store its drafts' texts.

    Raises NotFound (UNKNOWN_SPECIALIST), FailedPrecondition (JUDGE_NEEDS_KEY).
    """
    since = datetime.now(UTC) - WINDOW
    with begin() as tx:
        specialist = _find_specialist(tx, name, may_use)
        _require_expert(expert_id)
        drafts = tx.expert_decisions.list_drafts(name, since, MAX_DRAFTS) if specialist.keep_drafts else ()
        decisions = tx.expert_decisions.list_decisions(name, since)
        queue = make_queue(expert_id, drafts, decisions, specialist.judging)
        may_draw = specialist.keep_drafts and specialist.judging.draw_prompts and queue.needs_prompts
        draws_prompt = may_draw and count_drawn(drafts, decisions, specialist.judging) < MAX_DRAWN_WAITING
        last = _find_undoable(tx, name, expert_id)
        progress = tx.judgements.measure_round(specialist)
        return replace(queue, round=progress, last_decision=last.position if last else None, draws_prompt=draws_prompt)


def count_drawn_prompts(begin: Begin, name: str, may_use: MayUse) -> int:
    """The drawn prompts of a specialist that wait without a decision. Raises NotFound (UNKNOWN_SPECIALIST)."""
    since = datetime.now(UTC) - WINDOW
    with begin() as tx:
        specialist = _find_specialist(tx, name, may_use)
        drafts = tx.expert_decisions.list_drafts(name, since, MAX_DRAFTS)
        return count_drawn(drafts, tx.expert_decisions.list_decisions(name, since), specialist.judging)


def skip_pair(begin: Begin, name: str, draft_id: str, expert_id: str, may_use: MayUse) -> None:
    """Leave a draft's prompt out of the expert's queue. Idempotent.

    Raises NotFound (UNKNOWN_SPECIALIST, UNKNOWN_DRAFT), FailedPrecondition (JUDGE_NEEDS_KEY).
    """
    with begin() as tx:
        _find_specialist(tx, name, may_use)
        _require_expert(expert_id)
        draft = find_draft(tx.facts, draft_id, lambda specialist: specialist == name)
        tx.expert_decisions.record(expert_id, name, [draft.prompt_digest])


def undo_judgement(begin: Begin, name: str, expert_id: str, position: int | None, may_use: MayUse) -> str:
    """Take back the expert's last decision if it is the one at this position; returns the judgement's id, which is empty for a skip.

    Raises NotFound (UNKNOWN_SPECIALIST, NOTHING_TO_UNDO), FailedPrecondition (JUDGE_NEEDS_KEY; JUDGEMENT_IN_DATASET if a dataset that may
    have it was built since).
    """
    with begin() as tx:
        specialist = _find_specialist(tx, name, may_use)
        _require_expert(expert_id)
        last = tx.expert_decisions.newest(expert_id=expert_id, specialist=name)
        if last is None or last.position != position or not _is_recent(last):
            raise NotFound(
                Reason.NOTHING_TO_UNDO, "You have no decision of the last 15 minutes that can be taken back."
            )
        judgement = tx.judgements.find(judgement_id=last.judgement_id) if last.judgement_id else None
        if judgement is not None:
            if _is_in_dataset(tx, judgement, last):
                raise FailedPrecondition(
                    Reason.JUDGEMENT_IN_DATASET,
                    "A dataset that learns from judgements was built since, so this judgement can no longer be taken back.",
                )
            tx.judgements.retract(judgement, specialist)
        tx.expert_decisions.withdraw(last)
        return last.judgement_id


def find_last_decision(begin: Begin, name: str, expert_id: str, may_use: MayUse) -> int | None:
    """The position of the decision that the expert can take back.

    Raises NotFound (UNKNOWN_SPECIALIST), FailedPrecondition (JUDGE_NEEDS_KEY).
    """
    with begin() as tx:
        _find_specialist(tx, name, may_use)
        _require_expert(expert_id)
        last = _find_undoable(tx, name, expert_id)
        return last.position if last else None


def _find_undoable(tx: Transaction, name: str, expert_id: str) -> ExpertDecision | None:
    last = tx.expert_decisions.newest(expert_id=expert_id, specialist=name)
    if last is None or not _is_recent(last):
        return None
    judgement = tx.judgements.find(judgement_id=last.judgement_id) if last.judgement_id else None
    return None if judgement is not None and _is_in_dataset(tx, judgement, last) else last


def _is_in_dataset(tx: Transaction, judgement: Judgement, decision: ExpertDecision) -> bool:
    """True if a dataset may have the judgement. An edited draft is a row of the other kind, too."""
    kinds = (DatasetKind.PREFERENCE, DatasetKind.SFT) if judgement.edited else (DatasetKind.PREFERENCE,)
    return tx.expert_decisions.has_dataset_since(judgement.specialist, decision.create_time, kinds)


def _is_recent(decision: ExpertDecision) -> bool:
    return datetime.now(UTC) - decision.create_time <= UNDO_WINDOW


def _find_specialist(tx: Transaction, name: str, may_use: MayUse) -> Specialist:
    specialist = tx.specialists.find(name=name)
    if specialist is None or not may_use(name):
        raise unknown_specialist()
    return specialist


def _require_expert(expert_id: str) -> None:
    if not expert_id:
        raise FailedPrecondition(
            Reason.JUDGE_NEEDS_KEY,
            "The queue must know who judged what. Sign in as yourself, with your own secret, company account or API key, and the role "
            "expert or operator.",
        )
