"""Answers to prompts that were drawn from a specialist's dataset, for experts to judge."""

from services.inference.catalogued_drafts import wait_until_catalogued
from services.inference.domain import CANCELLED, Caller, RowPrompt, StoredPrompt, digest_prompt
from services.inference.generation import Cancellation, Inference
from services.inference.handlers import answer_stored_prompt, resolve
from services.inference.validation import check_messages, raise_if_invalid
from tailor.errors import FailedPrecondition, Reason

MAX_DOCUMENTS = 64


def answer_drawn_prompt(inference: Inference, caller: Caller, drawn: RowPrompt, cancellation: Cancellation) -> str:
    """Answer the prompt of a dataset's row with the specialist's own adapter; returns the draft's id.

    Blocks until the registry knows the draft with its text, or the caller cancels. Raises NotFound, InvalidArgument, FailedPrecondition
    (NO_ADAPTER, PROMPTS_NOT_DRAWN) before any token is generated, and as `generate`.
    """
    is_named = 1 <= len(drawn.document_ids) <= MAX_DOCUMENTS
    wrong = {} if is_named else {"document_ids": f"must have 1 to {MAX_DOCUMENTS} ids"}
    raise_if_invalid(check_messages(drawn.messages) | wrong)
    served = resolve(inference, caller, drawn.specialist)
    if served.adapter is None:
        raise FailedPrecondition(
            Reason.NO_ADAPTER,
            "The specialist has no adapter yet, so it cannot answer a drawn prompt. Wait until its first adapter serves.",
        )
    if inference.definitions.draft_labels(drawn.specialist) is None:
        raise FailedPrecondition(
            Reason.PROMPTS_NOT_DRAWN,
            "The specialist does not store its drafts, so no prompt is drawn for it. Have an operator set `keep_drafts`.",
        )
    prompt = StoredPrompt(digest_prompt(inference.drafts.digest_key, drawn.messages), drawn.document_ids)
    answer = answer_stored_prompt(inference, caller, served, drawn.messages, prompt=prompt, cancellation=cancellation)
    for _ in answer:
        pass
    if answer.finish_reason != CANCELLED:
        wait_until_catalogued(inference.archive, answer.draft_id)
    return answer.draft_id
