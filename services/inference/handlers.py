"""What inference does on each command and event: one function each."""

import math
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial

from services.inference.adapters.drafts import DraftArchive
from services.inference.deployments import MovedName
from services.inference.domain import (
    AT_BASE,
    BASE,
    CANCELLED,
    CANDIDATE_PREFIX,
    EDITED,
    AdapterRef,
    Caller,
    CandidateModel,
    ChatMessage,
    Draft,
    DraftFeedback,
    DraftRecord,
    GenerationRequest,
    OutcomeReport,
    Probe,
    PromptRecord,
    RowPrompt,
    RowToScore,
    Sampling,
    Score,
    ServedModel,
    ServingReport,
    StoredFeedback,
    StoredOutcome,
    Transcript,
    add_system_prompt,
    digest_prompt,
    digest_request,
    digest_text,
)
from services.inference.generation import Answer, AnswerStream, Cancellation, Inference, ModelServer
from services.inference.ports import PublishReport
from services.inference.private_prompts.hide import HiddenRequest, hide
from services.inference.repeated_calls import CallId
from services.inference.serving_table import ServingTable
from services.inference.validation import (
    check_edit,
    check_messages,
    check_request_id,
    check_rows,
    check_sampling,
    raise_if_invalid,
)
from tailor.errors import FailedPrecondition, InvalidArgument, NotFound, Reason, TailorError, Unavailable
from tailor.events.envelope import derive_id
from tailor.events.erased import Erased, Forgotten
from tailor.values import Thinking

# That of the console's comparisons: at 0, both answers would be the same.
REGENERATION_TEMPERATURE = 0.7
UNSET_IN_REGENERATION = frozenset({"top_p", "repetition_penalty", "max_tokens", "thinking"})
# Of the row whose prompt was drawn.
MAX_DOCUMENTS = 64


def generate(inference: Inference, caller: Caller, request: GenerationRequest, cancellation: Cancellation) -> Answer:
    """Check a request, wait for a place and start the answer; or give the answer of an earlier call with the same id, once it is whole.

    Raises NotFound, InvalidArgument, FailedPrecondition, ResourceExhausted or Unavailable before any token is generated.
    """
    wrong = check_messages(request.messages) | check_sampling(request.sampling) | check_request_id(request.request_id)
    raise_if_invalid(wrong | _check_thinking(caller, request))
    served = resolve(inference, caller, request.model)
    if not request.request_id:
        return _answer(inference, caller, served, request, cancellation)
    holder, digest = caller.key_id or caller.name, digest_request(inference.drafts.digest_key, request)
    call, calls = CallId(holder, request.request_id, digest), inference.repeated_calls
    if earlier := calls.begin(call, lambda: cancellation.cancelled):
        return earlier
    with ExitStack() as undo:
        undo.callback(calls.end, call, None)
        answer = _answer(inference, caller, served, request, cancellation)
        undo.pop_all()
    answer.on_close = partial(calls.end, call)
    return answer


def _check_thinking(caller: Caller, request: GenerationRequest) -> dict[str, str]:
    """Check that no caller switches a specialist's thoughts on: that is up to its definition, by which evaluation asks every model."""
    is_own = caller.is_evaluation or request.model == BASE or request.sampling.thinking == Thinking.OFF
    return (
        {}
        if is_own
        else {"sampling.thinking": "of a specialist can only be switched off; its definition switches it on"}
    )


def _answer(
    inference: Inference, caller: Caller, served: ServedModel, request: GenerationRequest, cancellation: Cancellation
) -> AnswerStream:
    request = request.with_defaults(inference.definitions.sampling(served.specialist))
    with inference.models.announce_call():
        hidden = _hide(inference, caller, served, request)
        request = hidden.request if hidden else request
        answer = AnswerStream(inference, caller, served, add_system_prompt(request.messages, served.system_prompt))
        answer.begin(request, cancellation, hidden)
    return answer


def _hide(
    inference: Inference, caller: Caller, served: ServedModel, request: GenerationRequest
) -> HiddenRequest | None:
    """Hide personal values if prompts are private. Evaluation's prompts already hold the corpus's surrogates."""
    labels = None if caller.is_evaluation else inference.definitions.prompt_labels(served)
    return None if labels is None else hide(inference.anonymizer, request, labels, served.system_prompt)


def resolve(inference: Inference, caller: Caller, model: str) -> ServedModel:
    """The model that a name stands for here, in the arm of a canary that answers this caller. A base in the name is left to `find_base`.

    Raises the same NotFound for a name that does not exist and for one that the caller may not use, and FailedPrecondition (NOT_SERVING)
    for a specialist that nothing serves here.
    """
    model, table = model.partition(AT_BASE)[0], inference.models.table
    if model == BASE:
        return ServedModel()
    if model.startswith(CANDIDATE_PREFIX) and caller.is_evaluation:
        served = table.candidate(model.removeprefix(CANDIDATE_PREFIX))
    else:
        served = table.get(model) if caller.may_use(model) else None
    if served is None:
        raise _not_served(inference, caller, model)
    return served.for_caller(caller)


def _not_served(inference: Inference, caller: Caller, model: str) -> TailorError:
    if inference.definitions.base(model) is None or not caller.may_use(model):
        return unknown_specialist("model")
    message = (
        f"The specialist {model} exists, but no adapter serves under its name yet. `tailor adapter list --specialist {model}` shows what "
        "its adapters wait for. Ask again when one serves, or ask `base`."
    )
    return FailedPrecondition(Reason.NOT_SERVING, message, field_violations={"model": "not served here"})


def list_specialists(table: ServingTable, caller: Caller) -> list[tuple[str, ServedModel]]:
    """The base, and the specialists that the caller may use, by name."""
    usable = [served.for_caller(caller) for served in table.all() if caller.may_use(served.specialist)]
    by_name = {served.specialist: served for served in usable}
    return [(BASE, ServedModel()), *sorted(by_name.items())]


def get_draft(archive: DraftArchive, caller: Caller, draft_id: str) -> tuple[DraftRecord, Transcript | None]:
    """A draft, and its text if that is stored.

    Raises the same NotFound for a draft that does not exist and for one that the caller may not see.
    """
    record = _find_draft(archive, caller, draft_id)
    text = record.draft.text
    return record, archive.texts.get(text) if text else None


def regenerate_draft(inference: Inference, caller: Caller, draft_id: str, cancellation: Cancellation) -> AnswerStream:
    """Answer the stored prompt of a draft again, at a temperature at which the answers differ.

    Raises NotFound as `get_draft`, FailedPrecondition (DRAFT_WITHOUT_TEXT) if its text is not stored, and as `generate`.
    """
    record, transcript = get_draft(inference.archive, caller, draft_id)
    draft = record.draft
    if transcript is None or not draft.served.specialist:
        raise FailedPrecondition(
            Reason.DRAFT_WITHOUT_TEXT,
            "The draft's text is not stored, or has expired. Only drafts of specialists with `keep_drafts` are answered again.",
        )
    served = resolve(inference, caller, draft.served.specialist)
    return answer_stored_prompt(
        inference, caller, served, transcript.messages, prompt=draft.prompt, cancellation=cancellation
    )


def answer_stored_prompt(
    inference: Inference,
    caller: Caller,
    served: ServedModel,
    messages: tuple[ChatMessage, ...],
    *,
    prompt: PromptRecord,
    cancellation: Cancellation,
) -> AnswerStream:
    """Answer a prompt that passed the barrier before, at a temperature at which answers differ. Raises as `generate`."""
    sampling = Sampling(temperature=REGENERATION_TEMPERATURE)
    request = GenerationRequest(served.specialist, messages, sampling, UNSET_IN_REGENERATION)
    request = request.with_defaults(inference.definitions.sampling(served.specialist))
    # The prompt holds surrogates only, so there is nothing to hide.
    answer = AnswerStream(inference, caller, served, add_system_prompt(messages, served.system_prompt), prompt)
    answer.begin(request, cancellation)
    return answer


def record_feedback(archive: DraftArchive, caller: Caller, feedback: DraftFeedback) -> StoredFeedback:
    """Store what a caller says of a draft that it may see; replaces what the same key said before.

    Raises NotFound as `get_draft`, InvalidArgument (INVALID_FEEDBACK), Unavailable while the registry or anonymization does not answer.
    """
    _find_draft(archive, caller, feedback.draft_id)
    return archive.store_feedback(feedback, caller.key_id)


def report_outcome(archive: DraftArchive, caller: Caller, report: OutcomeReport) -> StoredOutcome:
    """Store what a draft that the caller may see was worth, or how a text of its specialist was written without one.

    Raises NotFound as `get_draft` and `resolve`, InvalidArgument (INVALID_OUTCOME), Unavailable while the registry does not answer.
    """
    if report.draft_id:
        _find_draft(archive, caller, report.draft_id)
    if report.specialist and not caller.may_use(report.specialist):
        raise unknown_specialist("specialist")
    try:
        return archive.store_outcome(report, caller.key_id)
    except NotFound as error:  # the registry's words for it differ from ours, and would tell the two cases apart
        if error.reason != Reason.UNKNOWN_SPECIALIST:
            raise
        raise unknown_specialist("specialist") from None


def _find_draft(archive: DraftArchive, caller: Caller, draft_id: str) -> DraftRecord:
    try:
        record = archive.draft(draft_id)
    except NotFound:  # the registry's words for it differ from ours, and would tell the two cases apart
        raise unknown_draft() from None
    if not caller.may_see(record.draft.served.specialist, record.draft.key_id):
        raise unknown_draft()
    return record


def unknown_specialist(field: str) -> NotFound:
    """The same error for a specialist that does not exist and one that the caller may not use; `field` named it."""
    return NotFound(
        Reason.UNKNOWN_SPECIALIST,
        "This specialist does not exist here, or your key may not use it.",
        field_violations={field: "unknown"},
    )


def unknown_draft() -> NotFound:
    return NotFound(
        Reason.UNKNOWN_DRAFT, "This draft does not exist, or you may not see it. A new draft takes a moment to appear."
    )


def load_candidate(models: ModelServer, adapter: AdapterRef) -> CandidateModel:
    """Load an adapter for evaluation, and compare it with the trainer's own measurements.

    Raises FailedPrecondition if the adapter does not verify or load.
    """
    probes = models.cache.probes(adapter)
    with models.cache.using(adapter) as digest:
        differences = [_difference(models, probe, digest) for probe in probes]
        models.table.add_candidate(adapter)
    # Treat NaN as the largest difference.
    parity = max(differences, key=lambda difference: (math.isnan(difference), difference), default=None)
    return CandidateModel(CANDIDATE_PREFIX + adapter.digest, parity)


def _difference(models: ModelServer, probe: Probe, adapter: str) -> float:
    """Absolute difference from the trainer's mean log-probability, in nats per token."""
    with models.announce_call():
        score = models.engine.score_tokens(probe.tokens, probe.prompt_length, adapter)
    return abs(score.log_probability / score.tokens - probe.log_probability)


def score(
    inference: Inference, caller: Caller, model: str, rows: Sequence[RowToScore], cancelled: Callable[[], bool]
) -> list[Score]:
    """The rows' scores in order, up to a cancel. Raises NotFound, FailedPrecondition and InvalidArgument as in `generate`."""
    raise_if_invalid(check_rows(rows))
    models, served = inference.models, resolve(inference, caller, model)
    scores = []
    with models.cache.using(served.adapter) as adapter:
        for row in rows:
            if cancelled():
                break
            with models.announce_call():
                messages = add_system_prompt(row.messages, served.system_prompt)
                scores.append(models.engine.score(messages, row.completion, adapter))
    return scores


def apply_serving(models: ModelServer, publish: PublishReport, served: ServedModel) -> None:
    """Load a generation's adapters, its canary's included, then switch the name, then report it.

    A generation that does not verify is reported as refused, and the old one continues to serve. Idempotent: older generations are ignored.
    Raises Unavailable while the object store or the broker does not answer; then apply it again.
    """
    if not models.table.is_newer(served):
        return
    refusal = ""
    try:
        if served.specialist == BASE:
            raise InvalidArgument(Reason.RESERVED_NAME, "A specialist must not be called `base`.")
        for adapter in served.adapters:
            # Loaded one after the other, because there may be only one slot.
            with models.cache.using(adapter):
                pass
        models.table.switch(served)
    except TailorError as error:
        if error.retryable:
            raise
        refusal = error.reason
    publish(ServingReport(served, refusal))
    if refusal and served.adapter:
        models.table.refuse(MovedName(served.specialist, served.generation, models.base, served.adapter.digest))
    else:
        models.table.settle(served)


def forget_erased(models: ModelServer, erased: Erased) -> Forgotten:
    """Drop the candidates that learned from an erased document, and the retired adapters in memory and on disk.

    Raises Unavailable while a retired adapter still serves; its successor is on its way. Stored texts of drafts are anonymised, and expire.
    """
    candidates = sum(models.table.drop_candidate(digest) for digest in erased.adapters)
    serving = {adapter.digest for served in models.table.all() for adapter in served.adapters}
    if serving & set(erased.retired):
        raise Unavailable(Reason.RETIRED_SERVES, "A retired adapter still serves; its successor has not arrived yet.")
    dropped = sum(models.cache.drop(digest) for digest in erased.retired)
    return Forgotten({"candidates": candidates, "adapters": dropped})


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
    prompt = PromptRecord(digest_prompt(inference.drafts.digest_key, drawn.messages), drawn.document_ids)
    answer = answer_stored_prompt(inference, caller, served, drawn.messages, prompt=prompt, cancellation=cancellation)
    for _ in answer:
        pass
    if answer.finish_reason != CANCELLED:
        inference.archive.wait_for_text(answer.draft_id)
    return answer.draft_id


def edit_draft(inference: Inference, caller: Caller, draft_id: str, text: str) -> str:
    """Store the edited answer of a draft as a draft; returns its id, which the same text of the same draft always has.

    Blocks until the registry knows it, for at most CATALOGUE_SECONDS. Raises NotFound as `get_draft`, FailedPrecondition
    (DRAFT_WITHOUT_TEXT), InvalidArgument (INVALID_EDIT), and Unavailable while anonymization or a store does not answer.
    """
    _raise_if_wrong_edit(check_edit(text))
    record, transcript = get_draft(inference.archive, caller, draft_id)
    labels = inference.definitions.draft_labels(record.draft.served.specialist)
    if transcript is None or labels is None:
        raise FailedPrecondition(
            Reason.DRAFT_WITHOUT_TEXT,
            "The draft's text is not stored, or has expired. Only drafts of specialists with `keep_drafts` can be edited.",
        )
    edited_id = derive_id("drf", "edit", draft_id, digest_text(inference.drafts.digest_key, text))
    if inference.archive.has_text(edited_id):
        return edited_id
    # Only what is stored counts as passed; the caller names a draft and never such a text.
    passed = (*(message.content for message in transcript.messages), transcript.answer)
    answer = inference.anonymizer.anonymize_edit(text_id_of(edited_id), text, passed, labels)
    if answer.strip() == transcript.answer.strip():
        _raise_if_wrong_edit({"text": "must differ from the draft"})
    edited = Transcript(transcript.messages, answer, anonymized=True, is_drawn=record.draft.prompt.is_drawn)
    inference.drafts.publish(_make_draft(inference, record.draft, edited_id, edited))
    inference.archive.wait_for_text(edited_id)
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
        text=inference.archive.texts.put(edited),
        moment=time.time(),
        edit_of=draft.draft_id,
    )


def _raise_if_wrong_edit(wrong: dict[str, str]) -> None:
    if wrong:
        raise InvalidArgument(Reason.INVALID_EDIT, "The edited text is invalid.", field_violations=wrong)
