"""The queue of drafts that an expert judges: one function per page or command.

The registry admits the console itself to these calls, so the console refuses what the registry would refuse to the visitor's own key.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from services.console.clients import Services
from services.console.domain import Judgement, Permission, Visitor
from services.console.handlers import ServiceAnswer, ServiceFailure, call, read_draft, record_judgement, trace_draft
from tailor.api.events.v1.drafts_pb2 import JudgementRecorded
from tailor.api.inference.v1.inference_pb2 import (
    TEXT_STATE_KEPT,
    EditDraftRequest,
    GetDraftResponse,
    Message,
    RegenerateDraftRequest,
)
from tailor.api.registry.v1.judging_pb2 import (
    ListOwnJudgementsRequest,
    ListOwnJudgementsResponse,
    NextPairRequest,
    NextPairResponse,
    SkipPairRequest,
    UndoJudgementRequest,
)
from tailor.api.synthetic.v1.synthetic_pb2 import DrawPromptRequest


@dataclass(frozen=True)
class ReadableDraft:
    """A draft to judge, without anything that says which model wrote it."""

    draft_id: str
    text: str


@dataclass(frozen=True)
class DraftComparison:
    """A prompt and the drafts of it that are compared."""

    prompt: tuple[Message, ...]
    drafts: tuple[ReadableDraft, ...]


@dataclass(frozen=True)
class JudgingPage:
    """An expert's queue of a specialist, and the next drafts to compare; None if none wait, or their texts cannot be read."""

    queue: NextPairResponse
    comparison: DraftComparison | None
    failures: tuple[ServiceFailure, ...]


def open_judging(services: Services, visitor: Visitor, specialist: str) -> JudgingPage:
    """The visitor's next drafts. Raises NotFound for a specialist that is unknown or not visible to the visitor."""
    visitor.require(Permission.JUDGE)
    visitor.require_specialist(specialist)
    request = NextPairRequest(specialist=specialist, judged_by=visitor.key_id)
    answer = call("registry", lambda: services.judging.NextPair(request), NextPairResponse())
    ids = answer.value.draft_ids
    if not ids:
        return JudgingPage(answer.value, None, answer.failures)
    with ThreadPoolExecutor(max_workers=len(ids), thread_name_prefix="desk") as pool:
        drafts = list(pool.map(partial(read_draft, services), ids))
    failures = dict.fromkeys((*answer.failures, *(failure for draft in drafts for failure in draft.failures)))
    return JudgingPage(answer.value, _compare([draft.value for draft in drafts]), tuple(failures))


def _compare(drafts: Sequence[GetDraftResponse | None]) -> DraftComparison | None:
    readable = [draft for draft in drafts if draft is not None and draft.text_state == TEXT_STATE_KEPT]
    if len(readable) < len(drafts):
        return None
    return DraftComparison(
        tuple(readable[0].messages), tuple(ReadableDraft(draft.draft_id, draft.answer) for draft in readable)
    )


def skip_pair(services: Services, visitor: Visitor, specialist: str, draft_id: str) -> None:
    """Leave a draft's prompt out of the visitor's queue. Raises NotFound (UNKNOWN_SPECIALIST, UNKNOWN_DRAFT)."""
    visitor.require(Permission.JUDGE)
    visitor.require_specialist(specialist)
    services.judging.SkipPair(SkipPairRequest(specialist=specialist, draft_id=draft_id, judged_by=visitor.key_id))


def undo(services: Services, visitor: Visitor, specialist: str, decision: str) -> None:
    """Take back the visitor's last decision. Raises NotFound (UNKNOWN_SPECIALIST, NOTHING_TO_UNDO), FailedPrecondition."""
    visitor.require(Permission.JUDGE)
    visitor.require_specialist(specialist)
    services.judging.UndoJudgement(
        UndoJudgementRequest(specialist=specialist, decision=decision, judged_by=visitor.key_id)
    )


def list_own(
    services: Services, visitor: Visitor, specialist: str, token: str
) -> ServiceAnswer[ListOwnJudgementsResponse]:
    """A page of the visitor's judgements, newest first. Raises NotFound for a specialist that is not visible to the visitor."""
    visitor.require(Permission.JUDGE)
    visitor.require_specialist(specialist)
    request = ListOwnJudgementsRequest(specialist=specialist, judged_by=visitor.key_id, page_token=token)
    return call("registry", lambda: services.judging.ListOwnJudgements(request), ListOwnJudgementsResponse())


def regenerate(services: Services, visitor: Visitor, draft_id: str) -> str:
    """Have the stored prompt of a draft answered again; returns the new draft's id. Blocks until it is written.

    Raises NotFound (UNKNOWN_DRAFT), FailedPrecondition (DRAFT_WITHOUT_TEXT).
    """
    visitor.require(Permission.JUDGE)
    trace_draft(services, visitor, draft_id)
    return services.inference.RegenerateDraft(RegenerateDraftRequest(draft_id=draft_id)).draft_id


def draw_prompt(services: Services, visitor: Visitor, specialist: str) -> str:
    """Have a prompt drawn from the specialist's newest dataset and answered; returns the draft's id. Blocks until it is written.

    Raises NotFound (UNKNOWN_SPECIALIST), FailedPrecondition (PROMPTS_NOT_DRAWN, NO_DATASET, NO_ADAPTER, NO_PROMPT_LEFT), ResourceExhausted
    (ENOUGH_PROMPTS_WAIT) and Aborted (DRAWING_RUNNING).
    """
    visitor.require(Permission.JUDGE)
    visitor.require_specialist(specialist)
    return services.synthetic.DrawPrompt(DrawPromptRequest(specialist=specialist)).draft_id


def record_edit(
    services: Services, visitor: Visitor, specialist: str, judgement: Judgement, *, text: str, attempt: str
) -> JudgementRecorded:
    """Record a ranking whose best draft the visitor edited: the edited text is better than that draft. Blocks while it passes the barrier.

    The marks stay those of the draft. Raises NotFound (UNKNOWN_DRAFT), FailedPrecondition (DRAFT_WITHOUT_TEXT) and InvalidArgument
    (INVALID_EDIT).
    """
    visitor.require(Permission.JUDGE)
    visitor.require_specialist(specialist)
    for draft_id in judgement.ranking:
        trace_draft(services, visitor, draft_id)
    edited = services.inference.EditDraft(EditDraftRequest(draft_id=judgement.ranking[0], text=text)).draft_id
    return record_judgement(services, visitor, judgement.with_edit(edited), attempt)
