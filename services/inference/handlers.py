"""One function per command and event of inference."""

import math
from collections.abc import Callable, Sequence

from services.inference.answering import Answer, Cancellation, Inference
from services.inference.checks import check_sampling, check_turns, refuse_if
from services.inference.domain import (
    BASE,
    CANDIDATE_PREFIX,
    MAX_ROWS,
    AdapterName,
    Ask,
    Caller,
    Candidate,
    DraftRecord,
    Probe,
    RowToScore,
    Said,
    Score,
    Served,
    ServedReport,
    with_system,
)
from services.inference.private import HiddenAsk, hide
from tailor.errors import InvalidArgument, NotFound, Reason, TailorError, Unavailable
from tailor.events.erased import Erased, Forgotten


class Door:
    """What the servers stand behind: shut until a model is ready."""

    def __init__(self) -> None:
        self._inference: Inference | None = None

    def open(self, inference: Inference) -> None:
        """From now on calls are answered."""
        self._inference = inference

    def inference(self) -> Inference:
        """What the handlers work with; Unavailable while no model is ready."""
        if self._inference is None:
            raise Unavailable(Reason.NO_MODEL_READY, "The model is still loading; retry.", retry_after_seconds=2.0)
        return self._inference


def generate(inference: Inference, caller: Caller, ask: Ask, cancellation: Cancellation) -> Answer:
    """Check a question, wait for a place and begin to answer.

    NotFound, InvalidArgument, ResourceExhausted and Unavailable are raised here, before anything is written.
    """
    wrong = check_turns(ask.turns) | check_sampling(ask.sampling)
    refuse_if(wrong, Reason.INVALID_REQUEST)
    served = resolve(inference, caller, ask.model)
    hidden = _hide(inference, caller, served, ask)
    asked = hidden.ask if hidden else ask
    answer = Answer(inference, caller, served, with_system(asked.turns, served.system_prompt))
    answer.begin(asked, cancellation, hidden)
    return answer


def _hide(inference: Inference, caller: Caller, served: Served, ask: Ask) -> HiddenAsk | None:
    """The question behind the barrier where prompts are private; evaluation's prompts hold surrogates of the corpus already."""
    labels = None if caller.evaluates else inference.private.labels(served)
    return None if labels is None else hide(inference.barrier, ask, labels, served.system_prompt)


def resolve(inference: Inference, caller: Caller, model: str) -> Served:
    """What a model name means to this caller, whichever arm of a canary that is; the same NotFound for what does not exist and for what was
    not given to them."""
    if model == BASE:
        return Served()
    if model.startswith(CANDIDATE_PREFIX) and caller.evaluates:
        served = inference.table.candidate(model.removeprefix(CANDIDATE_PREFIX))
    else:
        served = inference.table.get(model) if caller.may_use(model) else None
    if served is None:
        raise NotFound(
            Reason.UNKNOWN_SPECIALIST,
            "There is no such specialist here, or it is not yours to use.",
            field_violations={"model": "Unknown."},
        )
    return served.for_caller(caller)


def list_specialists(inference: Inference, caller: Caller) -> list[tuple[str, Served]]:
    """The base, and the specialists that the caller may use, by name."""
    given = [served.for_caller(caller) for served in inference.table.all() if caller.may_use(served.specialist)]
    named = {served.specialist: served for served in given}
    return [(BASE, Served()), *sorted(named.items())]


def get_draft(inference: Inference, caller: Caller, draft_id: str) -> tuple[DraftRecord, Said | None]:
    """What is known of a draft, and its text where that is kept; the same NotFound for what does not exist and for what the caller may not
    see."""
    record = inference.archive.draft(draft_id)
    draft = record.draft
    if not caller.may_see(draft.served.specialist, draft.key_id):
        raise unknown_draft()
    return record, inference.archive.text(draft.text) if draft.text else None


def unknown_draft() -> NotFound:
    """The draft does not exist, or not for this caller."""
    return NotFound(Reason.UNKNOWN_DRAFT, "There is no such draft. A new one takes a moment to be catalogued.")


def load_candidate(inference: Inference, adapter: AdapterName) -> Candidate:
    """Load an adapter for evaluation, and compare it with what the trainer stored. FailedPrecondition where it does not verify or load."""
    probes = inference.shelf.probes(adapter)
    with inference.shelf.using(adapter) as digest:
        differences = [_difference(inference, probe, digest) for probe in probes]
        inference.table.add_candidate(adapter)
    # What is no number is the largest difference of all.
    parity = max(differences, key=lambda found: (math.isnan(found), found), default=None)
    return Candidate(CANDIDATE_PREFIX + adapter.digest, parity)


def _difference(inference: Inference, probe: Probe, adapter: str) -> float:
    """Nats a token between here and the trainer."""
    with inference.turns.take():
        score = inference.engine.score_tokens(probe.tokens, probe.prompt_length, adapter)
    return abs(score.log_probability / score.tokens - probe.log_probability)


def score(
    inference: Inference, caller: Caller, model: str, rows: Sequence[RowToScore], cancelled: Callable[[], bool]
) -> list[Score]:
    """The rows' scores in order, as far as the caller waits for them; NotFound and InvalidArgument as in generate."""
    refuse_if(_check_rows(rows), Reason.INVALID_REQUEST)
    served = resolve(inference, caller, model)
    scores = []
    with inference.shelf.using(served.adapter) as adapter:
        for row in rows:
            if cancelled():
                break
            with inference.turns.take():
                turns = with_system(row.turns, served.system_prompt)
                scores.append(inference.engine.score(turns, row.completion, adapter))
    return scores


def _check_rows(rows: Sequence[RowToScore]) -> dict[str, str]:
    if not 1 <= len(rows) <= MAX_ROWS:
        return {"rows": f"From 1 to {MAX_ROWS}; these are {len(rows)}."}
    wrong = {f"rows[{n}].{name}": what for n, row in enumerate(rows) for name, what in check_turns(row.turns).items()}
    return wrong | {f"rows[{n}].completion": "It is empty." for n, row in enumerate(rows) if not row.completion.strip()}


def apply_serving(inference: Inference, served: Served) -> None:
    """Load what a specialist's name means from now on, its canary too, then switch, then say so; what does not verify is refused and the
    old one goes on.

    An older generation is ignored. Unavailable where store or broker do not answer: then apply it again.
    """
    if not inference.table.is_newer(served):
        return
    refusal = ""
    try:
        if served.specialist == BASE:
            raise InvalidArgument(Reason.RESERVED_NAME, "No specialist may be called `base`.")
        for adapter in served.adapters:
            # Loaded one after the other: with a single slot they take turns.
            with inference.shelf.using(adapter):
                pass
        inference.table.switch(served)
    except TailorError as error:
        if error.retryable:
            raise
        refusal = error.reason
    inference.reports.add(ServedReport(served, refusal))
    inference.table.settle(served)


def forget_erased(inference: Inference, erased: Erased) -> Forgotten:
    """Let go of the adapters that learned from an erased document: none is a candidate, and the retired are held no more.

    Unavailable while a retired one serves still: its successor is on its way. Kept texts of drafts are anonymised, and expire.
    """
    candidates = sum(inference.table.drop_candidate(digest) for digest in erased.adapters)
    serving = {adapter.digest for served in inference.table.all() for adapter in served.adapters}
    if serving & set(erased.retired):
        raise Unavailable(Reason.RETIRED_SERVES, "A retired adapter still serves; what serves instead has not arrived.")
    dropped = sum(inference.shelf.drop(digest) for digest in erased.retired)
    return Forgotten({"candidates": candidates, "adapters": dropped})


def forget_specialist(inference: Inference, specialist: str) -> None:
    """The name means nothing any more."""
    inference.table.remove(specialist)
