"""The review of what the barrier left: one function per page or command."""

import re
from collections.abc import Iterator

from services.console.domain import PassageDecision, PassagePiece, Permission, Visitor
from services.console.handlers import ServiceAnswer, call
from services.console.ports import Services
from tailor.api.anonymization.v1.replaced_pb2 import GetReplacedResponse
from tailor.api.anonymization.v1.review_pb2 import (
    STRETCH_KIND_REPLACED,
    GetResidualReportResponse,
    NextPassageResponse,
    PassageStretch,
    ReviewPassage,
    SignedStatement,
)
from tailor.errors import FailedPrecondition, Unavailable

PIECE = re.compile(r"\w+(?:[.'’@-]\w+)*|\s+|[^\w\s]")
# Keys that mark a type; the others are commands.
TYPE_KEYS = "123456789abcdefghijklmopqrtvwxyz"


def next_passage(services: Services, visitor: Visitor, kind: str) -> ServiceAnswer[NextPassageResponse]:
    """The visitor's next passage, of a kind or of any."""
    visitor.require(Permission.REVIEW)
    return call("anonymization", lambda: services.review.next_passage(kind, visitor.key_id), NextPassageResponse())


def decide_passage(services: Services, visitor: Visitor, decision: PassageDecision) -> None:
    """Record the visitor's decision. Raises InvalidArgument (INVALID_MARKS), FailedPrecondition (ALREADY_REVIEWED), NotFound."""
    visitor.require(Permission.REVIEW)
    services.review.decide(decision, visitor.key_id)


def undo_decision(services: Services, visitor: Visitor) -> None:
    """Take back the visitor's last decision. Raises NotFound (NOTHING_TO_UNDO)."""
    visitor.require(Permission.REVIEW)
    services.review.undo(visitor.key_id)


def draw_sample(services: Services, visitor: Visitor, size: int, *, replace: bool) -> int:
    """Draw a sample; returns its size. Raises FailedPrecondition (SAMPLE_UNFINISHED, NO_PASSAGES)."""
    visitor.require(Permission.REVIEW)
    return services.review.draw_sample(size, visitor.key_id, replace=replace).drawn


def sign_statement(services: Services, visitor: Visitor) -> SignedStatement:
    """A signed statement of the report. Raises FailedPrecondition (NOTHING_REVIEWED)."""
    visitor.require(Permission.REVIEW)
    return services.review.sign_statement(visitor.key_id)


def get_report(services: Services) -> ServiceAnswer[GetResidualReportResponse]:
    """What is known of what is left."""
    return call("anonymization", services.review.get_report, GetResidualReportResponse())


def get_passage(services: Services, visitor: Visitor, document_id: str, number: int) -> ReviewPassage:
    """One passage of a document. Raises NotFound (UNKNOWN_PASSAGE)."""
    visitor.require(Permission.REVIEW)
    return services.review.get_passage(document_id, number)


def get_replaced(services: Services, visitor: Visitor, entity_type: str, surrogate: str) -> GetReplacedResponse:
    """A string that is replaced in many documents, and where. Raises NotFound (UNKNOWN_REPLACED)."""
    visitor.require(Permission.REVIEW)
    return services.review.get_replaced(entity_type, surrogate, visitor.key_id)


def decide_replaced(services: Services, visitor: Visitor, entity_type: str, surrogate: str, *, allow: bool) -> str:
    """Keep a string replaced, or allow it and replay that; returns what became of it: `kept`, `allowed` or `allowed-later`.

    Raises FailedPrecondition (PLACES_NOT_SEEN), NotFound (UNKNOWN_REPLACED), InvalidArgument (INVALID_POLICY, TOO_LONG).
    """
    visitor.require(Permission.REVIEW)
    barrier_digest = services.review.decide_replaced(entity_type, surrogate, visitor.key_id, allow=allow)
    if not allow:
        return "kept"
    try:
        services.start_replay(barrier_digest, visitor.key_id)
    except (FailedPrecondition, Unavailable):
        # Another replay runs, or ingestion does not answer. The string is allowed in any case.
        return "allowed-later"
    return "allowed"


def split_passage(passage: ReviewPassage) -> Iterator[PassagePiece]:
    """The words, punctuation and spaces of a passage and of its context."""
    for match in PIECE.finditer(passage.text):
        start, end = match.span()
        stretch = _stretch_at(passage, start, end)
        is_replaced = stretch is not None and stretch.kind == STRETCH_KIND_REPLACED
        kind = "replaced" if is_replaced else "word" if passage.start <= start < passage.end else "context"
        yield PassagePiece(start, end, match[0], kind, "" if stretch is None else stretch.entity_type)


def type_keys(passage: ReviewPassage) -> list[tuple[str, str]]:
    """The types that a mark may have, each with the key that marks it; the rarest ones have none."""
    keys = [*TYPE_KEYS, *[""] * len(passage.entity_types)]
    return list(zip(keys, passage.entity_types, strict=False))


def _stretch_at(passage: ReviewPassage, start: int, end: int) -> PassageStretch | None:
    return next((item for item in passage.stretches if item.start < end and start < item.end), None)
