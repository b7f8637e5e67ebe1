"""Drafts and experts' judgements of them."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

from services.registry.adapters.sql import Begin, SqlFacts
from services.registry.domain import Draft, GivenJudgement, Judgement, JudgingPolicy
from services.registry.ports import Anonymize
from services.registry.rules.judgement_checks import check_judgement, find_common_specialist, resolve_marks
from services.registry.rules.ledger import cap_seconds
from tailor.errors import NotFound, Reason
from tailor.events.envelope import derive_id
from tailor.values import Selection


def record_judgement(
    begin: Begin,
    anonymize: Anonymize,
    given: GivenJudgement,
    *,
    judgement_id: str,
    may_use: Callable[[str], bool],
    expert_id: str = "",
) -> Judgement:
    """Store a judgement with its comment anonymised by the policy for the specialist's documents. Idempotent by id.

    The time that the expert took is only in the sums of the ledger. Raises NotFound for a draft that the caller may not see,
    InvalidArgument for an invalid judgement.
    """
    check_judgement(given)
    counted_seconds = cap_seconds(given.seconds)
    with begin() as tx:
        known = tx.judgements.find(judgement_id=judgement_id)
        drafts = [find_draft(tx.facts, draft_id, may_use) for draft_id in given.ranking]
    name = known.specialist if known else find_common_specialist(drafts)
    with begin() as tx:
        specialist = tx.specialists.find(name=name)
        if known is not None:
            return replace(known, round=tx.judgements.measure_round(specialist) if specialist else None)
    policy = specialist.judging if specialist else JudgingPolicy()
    marks = resolve_marks(given, drafts, policy.effective_criteria)
    selection = specialist.selection if specialist else Selection()
    judgement = Judgement(
        judgement_id=judgement_id,
        specialist=name,
        ranking=given.ranking if given.is_ranked else (),
        marks=marks,
        comment=anonymize(given.comment, selection.common_labels) if given.comment.strip() else "",
        create_time=datetime.now(UTC),
        expert_id=expert_id,
        outcome=given.outcome,
        equal=() if given.is_ranked else given.ranking,
        edited=given.is_ranked and len(drafts) > 1 and drafts[0].edit_of == drafts[1].draft_id,
        places=given.places if len(set(given.places)) < len(given.places) else (),
    )
    with begin() as tx:
        progress = tx.judgements.measure_round(specialist, judgement.decided_pairs) if specialist else None
        judgement = replace(judgement, round=progress)
        tx.judgements.save(judgement)
        if counted_seconds is not None:
            tx.usage.judging_times.add(judgement_id=judgement_id, specialist=name, seconds=counted_seconds)
        if expert_id:
            tx.expert_decisions.record(expert_id, name, [draft.prompt_digest for draft in drafts], judgement_id)
    return judgement


def get_draft(begin: Begin, draft_id: str, *, role: str, key_id: str, may_use: Callable[[str], bool]) -> Draft:
    """A draft of the caller's specialists; for the caller role, one that its key requested. Raises NotFound."""
    with begin() as tx:
        draft = find_draft(tx.facts, draft_id, may_use)
    if role == "ROLE_CALLER" and draft.key_id != key_id:
        raise _unknown_draft()
    return draft


def identify_expert(key_id: str) -> str:
    """The opaque id of the expert with this id of a person or an API key; empty without one."""
    return derive_id("exp", key_id) if key_id else ""


def find_draft(facts: SqlFacts, draft_id: str, may_use: Callable[[str], bool]) -> Draft:
    """A draft of the caller's specialists, or of the base. Raises NotFound."""
    draft = facts.find_draft(draft_id)
    if draft is None or (draft.specialist and not may_use(draft.specialist)):
        raise _unknown_draft()
    return draft


def _unknown_draft() -> NotFound:
    return NotFound(Reason.UNKNOWN_DRAFT, "This draft does not exist. A new draft is catalogued after a moment.")
