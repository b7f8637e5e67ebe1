"""The review of what the barrier left: one function per page or command."""

import re
from collections.abc import Iterator

from services.console.clients import Services
from services.console.domain import PassageDecision, PassagePiece, Permission, Visitor
from services.console.handlers import ServiceAnswer, call
from tailor.api.anonymization.v1 import replaced_pb2, review_pb2
from tailor.api.anonymization.v1.review_pb2 import ReviewPassage
from tailor.api.ingestion.v1.replay_pb2 import StartReplayRequest
from tailor.errors import FailedPrecondition, Unavailable
from tailor.events.envelope import new_id

PIECE = re.compile(r"\w+(?:[.'’@-]\w+)*|\s+|[^\w\s]")
# Keys that mark a type; the others are commands.
TYPE_KEYS = "123456789abcdefghijklmopqrtvwxyz"


def next_passage(services: Services, visitor: Visitor, kind: str) -> ServiceAnswer[review_pb2.NextPassageResponse]:
    """The visitor's next passage, of a kind, `sample` or `disagreement`; of any if it is empty."""
    visitor.require(Permission.REVIEW)
    number = review_pb2.PassageKind.Value(f"PASSAGE_KIND_{kind.upper() or 'UNSPECIFIED'}")
    request = review_pb2.NextPassageRequest(kind=number, reviewer=visitor.key_id)
    return call("anonymization", lambda: services.review.NextPassage(request), review_pb2.NextPassageResponse())


def decide_passage(services: Services, visitor: Visitor, decision: PassageDecision) -> None:
    """Record the visitor's decision. Raises InvalidArgument (INVALID_MARKS), FailedPrecondition (ALREADY_REVIEWED), NotFound."""
    visitor.require(Permission.REVIEW)
    marks = [review_pb2.PassageMark(start=start, end=end, entity_type=kind) for start, end, kind in decision.marks]
    request = review_pb2.DecidePassageRequest(
        passage_id=decision.passage_id, marks=marks, skip=decision.skip, reviewer=visitor.key_id
    )
    services.review.DecidePassage(request)


def undo_decision(services: Services, visitor: Visitor) -> None:
    """Take back the visitor's last decision. Raises NotFound (NOTHING_TO_UNDO)."""
    visitor.require(Permission.REVIEW)
    services.review.UndoDecision(review_pb2.UndoDecisionRequest(reviewer=visitor.key_id))


def draw_sample(services: Services, visitor: Visitor, size: int, *, replace: bool) -> int:
    """Draw a sample; returns its size. Raises FailedPrecondition (SAMPLE_UNFINISHED, NO_PASSAGES)."""
    visitor.require(Permission.REVIEW)
    request = review_pb2.DrawSampleRequest(size=size, replace=replace, reviewer=visitor.key_id)
    return services.review.DrawSample(request).drawn


def sign_statement(services: Services, visitor: Visitor) -> review_pb2.SignedStatement:
    """A signed statement of the report. Raises FailedPrecondition (NOTHING_REVIEWED)."""
    visitor.require(Permission.REVIEW)
    return services.review.SignStatement(review_pb2.SignStatementRequest(reviewer=visitor.key_id)).statement


def get_report(services: Services) -> ServiceAnswer[review_pb2.GetResidualReportResponse]:
    """What is known of what is left."""
    request = review_pb2.GetResidualReportRequest()
    return call(
        "anonymization", lambda: services.review.GetResidualReport(request), review_pb2.GetResidualReportResponse()
    )


def get_passage(services: Services, visitor: Visitor, document_id: str, number: int) -> ReviewPassage:
    """One passage of a document. Raises NotFound (UNKNOWN_PASSAGE)."""
    visitor.require(Permission.REVIEW)
    return services.review.GetPassage(review_pb2.GetPassageRequest(document_id=document_id, number=number)).passage


def get_replaced(
    services: Services, visitor: Visitor, entity_type: str, surrogate: str
) -> replaced_pb2.GetReplacedResponse:
    """A string that is replaced in many documents, and where. Raises NotFound (UNKNOWN_REPLACED)."""
    visitor.require(Permission.REVIEW)
    request = replaced_pb2.GetReplacedRequest(entity_type=entity_type, surrogate=surrogate, reviewer=visitor.key_id)
    return services.replaced.GetReplaced(request)


def decide_replaced(services: Services, visitor: Visitor, entity_type: str, surrogate: str, *, allow: bool) -> str:
    """Keep a string replaced, or allow it and replay that; returns what became of it: `kept`, `allowed` or `allowed-later`.

    Raises FailedPrecondition (PLACES_NOT_SEEN), NotFound (UNKNOWN_REPLACED), InvalidArgument (INVALID_POLICY, TOO_LONG).
    """
    visitor.require(Permission.REVIEW)
    request = replaced_pb2.DecideReplacedRequest(
        entity_type=entity_type,
        surrogate=surrogate,
        decision=replaced_pb2.REPLACED_DECISION_ALLOWED if allow else replaced_pb2.REPLACED_DECISION_KEPT,
        reviewer=visitor.key_id,
    )
    barrier_digest = services.replaced.DecideReplaced(request).policy.barrier_digest
    if not allow:
        return "kept"
    replay = StartReplayRequest(request_id=new_id("req"), barrier_digest=barrier_digest, requester=visitor.key_id)
    try:
        services.replays.StartReplay(replay)
    except (FailedPrecondition, Unavailable):
        # Another replay runs, or ingestion does not answer. The string is allowed in any case.
        return "allowed-later"
    return "allowed"


def split_passage(passage: ReviewPassage) -> Iterator[PassagePiece]:
    """The words, punctuation and spaces of a passage and of its context."""
    for match in PIECE.finditer(passage.text):
        start, end = match.span()
        stretch = _stretch_at(passage, start, end)
        is_replaced = stretch is not None and stretch.kind == review_pb2.STRETCH_KIND_REPLACED
        kind = "replaced" if is_replaced else "word" if passage.start <= start < passage.end else "context"
        yield PassagePiece(start, end, match[0], kind, "" if stretch is None else stretch.entity_type)


def type_keys(passage: ReviewPassage) -> list[tuple[str, str]]:
    """The types that a mark may have, each with the key that marks it; the rarest ones have none."""
    keys = [*TYPE_KEYS, *[""] * len(passage.entity_types)]
    return list(zip(keys, passage.entity_types, strict=False))


def _stretch_at(passage: ReviewPassage, start: int, end: int) -> review_pb2.PassageStretch | None:
    return next((item for item in passage.stretches if item.start < end and start < item.end), None)
