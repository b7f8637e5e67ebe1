"""The review in memory, for the console."""

from dataclasses import dataclass, field

from services.console.domain import Page, PassageDecision
from services.console.ports import PassageReview
from tailor.api.anonymization.v1 import replaced_pb2, review_pb2
from tailor.errors import FailedPrecondition, NotFound, Reason, Unavailable
from tests.fakes.replaced import PLACE, VALUES, FakeReplaced
from tests.fakes.review import PASSAGE, passage, report


@dataclass
class FakePassageReview(PassageReview):
    """One passage, as long as `waits`. Remembers what was decided, and by which key."""

    waits: bool = True
    down: bool = False
    report: review_pb2.GetResidualReportResponse = field(default_factory=report)
    decisions: list[tuple[PassageDecision, str]] = field(default_factory=list)
    draws: list[tuple[int, bool, str]] = field(default_factory=list)
    undone: list[str] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)
    strings: list[replaced_pb2.ReplacedString] = field(default_factory=lambda: FakeReplaced().strings)
    seen: list[tuple[str, str]] = field(default_factory=list)
    strings_decided: list[tuple[str, bool, str]] = field(default_factory=list)

    def _answer(self) -> None:
        if self.down:
            raise Unavailable(Reason.UNAVAILABLE, "anonymization does not answer.")

    def draw_sample(self, size: int, reviewer: str, *, replace: bool) -> review_pb2.DrawSampleResponse:
        self.draws.append((size, replace, reviewer))
        return review_pb2.DrawSampleResponse(sample_id="smp_1", drawn=size)

    def next_passage(self, kind: str, reviewer: str) -> review_pb2.NextPassageResponse:
        self._answer()
        self.kinds.append(kind)
        found = passage() if self.waits else None
        return review_pb2.NextPassageResponse(passage=found, waiting=self.report.waiting)

    def decide(self, decision: PassageDecision, reviewer: str) -> None:
        self.decisions.append((decision, reviewer))

    def undo(self, reviewer: str) -> str:
        if self.undone:
            raise NotFound(Reason.NOTHING_TO_UNDO, "You have no decision that can be taken back.")
        self.undone.append(reviewer)
        return PASSAGE

    def get_passage(self, document_id: str, number: int) -> review_pb2.ReviewPassage:
        if number > 3:
            raise NotFound(Reason.UNKNOWN_PASSAGE, "There is no such passage.")
        return passage(passage_id="", document_id=document_id, number=number)

    def get_report(self) -> review_pb2.GetResidualReportResponse:
        self._answer()
        return self.report

    def list_rare_combinations(self, token: str) -> Page[review_pb2.RareCombination]:
        self._answer()
        item = review_pb2.RareCombination(
            document_id="doc_9", entity_types=["JOB_TITLE", "LOCATION"], documents=1, number=3
        )
        return Page((item,), "" if token else "50")

    def list_replaced(self, token: str) -> Page[replaced_pb2.ReplacedString]:
        self._answer()
        return Page(tuple(self.strings), "")

    def get_replaced(self, entity_type: str, surrogate: str, reviewer: str) -> replaced_pb2.GetReplacedResponse:
        counts = next((item for item in self.strings if item.surrogate == surrogate), None)
        if counts is None or counts.entity_type != entity_type:
            raise NotFound(Reason.UNKNOWN_REPLACED, "No such string.")
        self.seen.append((surrogate, reviewer))
        place = replaced_pb2.ReplacedPlace(document_id="doc_1", department="risk", text=PLACE, start=5, end=12)
        return replaced_pb2.GetReplacedResponse(counts=counts, value=VALUES[surrogate], places=[place])

    def decide_replaced(self, entity_type: str, surrogate: str, reviewer: str, *, allow: bool) -> str:
        if (surrogate, reviewer) not in self.seen:
            raise FailedPrecondition(Reason.PLACES_NOT_SEEN, "Look at the places first.")
        self.strings_decided.append((surrogate, allow, reviewer))
        return "b" * 64

    def sign_statement(self, reviewer: str) -> review_pb2.SignedStatement:
        return review_pb2.SignedStatement(body='{"kind": "statement"}', signature=b"\x01", public_key=b"\x02")
