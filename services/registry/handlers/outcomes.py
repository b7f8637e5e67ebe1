"""What drafts were worth: what callers report, and what became of the text."""

from dataclasses import replace
from datetime import datetime

from services.registry.adapters.compared_texts import StoredComparedTexts
from services.registry.adapters.sql import Begin
from services.registry.domain import Draft, Feedback, FeedbackVerdict
from services.registry.handlers.specialists import unknown_specialist
from services.registry.outcome_domain import DeliverableText, DraftOutcome, FinalText
from services.registry.rules.outcomes import check_outcome, find_specialist_of, measure_edit_retention
from tailor.errors import NotFound, Reason

# Of a draft that was used as it is, and of one that was not used.
WHOLE_SHARES = {FeedbackVerdict.ACCEPTED: 1.0, FeedbackVerdict.REJECTED: 0.0}


def store_outcome(begin: Begin, outcome: DraftOutcome, request_id: str) -> DraftOutcome:
    """Store what a draft was worth, or how a text was written without one. Replaces an earlier one with the same id.

    Raises NotFound (UNKNOWN_DRAFT, UNKNOWN_SPECIALIST), InvalidArgument (INVALID_OUTCOME).
    """
    check_outcome(outcome, request_id)
    with begin() as tx:
        draft = tx.facts.find_draft(outcome.draft_id) if outcome.draft_id else None
        if outcome.draft_id and draft is None:
            raise NotFound(Reason.UNKNOWN_DRAFT, "This draft does not exist. A new draft is catalogued after a moment.")
        name = find_specialist_of(outcome, draft)
        specialist = tx.specialists.find(name=name)
        if specialist is None or specialist.deleted:
            raise unknown_specialist()
        stored = replace(outcome, specialist=name)
        if draft is not None and draft.specialist:
            stored = replace(stored, generation=draft.generation, adapter_digest=draft.adapter_digest)
        tx.outcomes.upsert(stored)
    return stored


def record_deliverable(begin: Begin, texts: StoredComparedTexts, deliverable: DeliverableText) -> None:
    """Store how much of its draft a deliverable kept. Idempotent; the last deliverable of a draft counts. Blocks.

    One of an unknown draft waits for it; one of the base is left out, and so is one that was erased. Raises what `texts` raise.
    """
    with begin() as tx:
        draft = tx.facts.find_draft(deliverable.draft_id)
    if draft is None:
        draft = Draft(deliverable.draft_id, "", "", "", "")
    elif not draft.specialist:
        return
    share = None
    if draft.text is not None:
        answer, text = texts.read_answer(draft.text), texts.read_document(deliverable.text)
        share = measure_edit_retention(answer, text) if answer is not None and text is not None else None
    with begin() as tx:
        if not tx.erasures.is_erased(deliverable.document_id):
            final = _final_text(draft, deliverable.document_id, share, deliverable.create_time)
            tx.outcomes.save_final_text(final)


def measure_waiting(begin: Begin, texts: StoredComparedTexts, draft_id: str) -> None:
    """Measure the deliverable of a draft that came before the draft, or before the draft's text. Raises what `texts` raise."""
    with begin() as tx:
        waiting = tx.outcomes.find_unmeasured(draft_id)
    if waiting is not None:
        record_deliverable(begin, texts, waiting)


def record_final_text(begin: Begin, texts: StoredComparedTexts, feedback: Feedback) -> None:
    """Store how much of a draft was kept by what a caller said of it, unless a deliverable was made from it. Blocks.

    An edited draft counts if both texts are stored. Raises what `texts` raise.
    """
    with begin() as tx:
        draft = tx.facts.find_draft(feedback.draft_id)
    if draft is None or not draft.specialist or feedback.verdict is None:
        return
    share = WHOLE_SHARES.get(feedback.verdict)
    if feedback.edited_text and draft.text is not None:
        answer = texts.read_answer(draft.text)
        share = None if answer is None else measure_edit_retention(answer, feedback.edited_text)
    with begin() as tx:
        tx.outcomes.save_final_text(_final_text(draft, "", share, feedback.create_time))


def _final_text(draft: Draft, document_id: str, share: float | None, create_time: datetime) -> FinalText:
    return FinalText(
        draft_id=draft.draft_id,
        document_id=document_id,
        specialist=draft.specialist,
        generation=draft.generation,
        adapter_digest=draft.adapter_digest,
        share=share,
        create_time=create_time,
    )
