"""Callers' feedback on drafts."""

from dataclasses import replace

from services.registry.adapters.compared_texts import StoredComparedTexts
from services.registry.adapters.sql import Begin
from services.registry.domain import Draft, Feedback
from services.registry.handlers.outcomes import record_final_text
from services.registry.ports import Anonymize
from services.registry.rules.feedback import check_feedback
from tailor.errors import NotFound, Reason
from tailor.values import Labels, Selection


def store_feedback(begin: Begin, anonymize: Anonymize, texts: StoredComparedTexts, feedback: Feedback) -> Feedback:
    """Store feedback with its texts anonymised by the policy for the specialist's documents. Replaces an earlier one with the same id.

    The edited text is stored only if the specialist keeps its drafts' texts, and compared with the draft.
    Raises NotFound (UNKNOWN_DRAFT), InvalidArgument (INVALID_FEEDBACK), Unavailable while anonymization or the store does not answer.
    """
    check_feedback(feedback)
    with begin() as tx:
        draft = _find_draft(tx.facts.find_draft(feedback.draft_id))
        specialist = tx.specialists.find(name=draft.specialist) if draft.specialist else None
    labels = (specialist.selection if specialist else Selection()).common_labels
    kept = feedback.edited_text if specialist is not None and specialist.keep_drafts else ""
    stored = replace(
        feedback,
        specialist=draft.specialist,
        adapter_digest=draft.adapter_digest,
        edited_text=_anonymize(anonymize, kept, labels),
        comment=_anonymize(anonymize, feedback.comment, labels),
    )
    with begin() as tx:
        tx.feedback.save(stored)
    record_final_text(begin, texts, stored)
    return stored


def _anonymize(anonymize: Anonymize, text: str, labels: Labels) -> str:
    return anonymize(text, labels) if text.strip() else ""


def _find_draft(draft: Draft | None) -> Draft:
    if draft is None:
        raise NotFound(Reason.UNKNOWN_DRAFT, "This draft does not exist. A new draft is catalogued after a moment.")
    return draft
