"""A draft as an expert edited it: what was added passes the barrier, and the text becomes another draft of the same prompt."""

import time
from dataclasses import replace

from services.inference.catalogued_drafts import is_catalogued, wait_until_catalogued
from services.inference.domain import EDITED, Caller, Draft, Transcript, digest_text
from services.inference.generation import Inference
from services.inference.handlers import get_draft
from services.inference.validation import check_edit
from tailor.errors import FailedPrecondition, InvalidArgument, Reason
from tailor.events.envelope import derive_id


def edit_draft(inference: Inference, caller: Caller, draft_id: str, text: str) -> str:
    """Store the edited answer of a draft as a draft; returns its id, which the same text of the same draft always has.

    Blocks until the registry knows it, for at most CATALOGUE_SECONDS. Raises NotFound as `get_draft`, FailedPrecondition
    (DRAFT_WITHOUT_TEXT), InvalidArgument (INVALID_EDIT), and Unavailable while anonymization or a store does not answer.
    """
    _raise_if_invalid(check_edit(text))
    record, transcript = get_draft(inference.archive, caller, draft_id)
    labels = inference.definitions.draft_labels(record.draft.served.specialist)
    if transcript is None or labels is None:
        raise FailedPrecondition(
            Reason.DRAFT_WITHOUT_TEXT,
            "The draft's text is not stored, or has expired. Only drafts of specialists with `keep_drafts` can be edited.",
        )
    edited_id = derive_id("drf", "edit", draft_id, digest_text(inference.drafts.digest_key, text))
    if is_catalogued(inference.archive, edited_id):
        return edited_id
    # Only what is stored counts as passed; the caller names a draft and never such a text.
    passed = (*(message.content for message in transcript.messages), transcript.answer)
    answer = inference.anonymizer.anonymize_edit(text_id_of(edited_id), text, passed, labels)
    if answer.strip() == transcript.answer.strip():
        _raise_if_invalid({"text": "must differ from the draft"})
    is_drawn = bool(record.draft.drawn_from)
    edited = Transcript(transcript.messages, answer, anonymized=True, is_drawn=is_drawn)
    inference.drafts.publish(_make_draft(inference, record.draft, edited_id, edited))
    wait_until_catalogued(inference.archive, edited_id)
    return edited_id


def text_id_of(draft_id: str) -> str:
    """The id by which an edited draft is erased: anonymization, the registry and synthetic know it under this id."""
    return f"txt_{draft_id.removeprefix('drf_')}"


def _make_draft(inference: Inference, draft: Draft, edited_id: str, edited: Transcript) -> Draft:
    """It keeps the adapter: if that must be forgotten, so must what was made from its answer."""
    return replace(
        draft,
        draft_id=edited_id,
        key_id="",
        answer_digest=digest_text(inference.drafts.digest_key, edited.answer),
        prompt_tokens=0,
        completion_tokens=0,
        finish_reason=EDITED,
        first_token_seconds=0.0,
        seconds=0.0,
        compute_seconds=0.0,
        compute_device="",
        text=inference.archive.store_text(edited),
        moment=time.time(),
        edit_of=draft.draft_id,
    )


def _raise_if_invalid(wrong: dict[str, str]) -> None:
    if wrong:
        raise InvalidArgument(Reason.INVALID_EDIT, "The edited text is invalid.", field_violations=wrong)
