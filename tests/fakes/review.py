"""The review in memory: one passage, in which one name was left."""

from typing import Any

from tailor.api.anonymization.v1 import review_pb2, review_pb2_grpc
from tailor.errors import InvalidArgument, NotFound, Reason, Unavailable
from tests.fakes.serving import refuse

TEXT = "Before it. Ms Ward asked gregor herrmann about [PERSON]. After it."
PASSAGE = "psg_" + "6" * 32
SHARE = review_pb2.ResidualShare(left=20, share=0.05, low=0.0308, high=0.0762)


def passage(**changes: Any) -> review_pb2.ReviewPassage:
    ward, name = TEXT.index("Ward"), TEXT.index("gregor")
    values: dict[str, Any] = {
        "passage_id": PASSAGE,
        "kind": review_pb2.PASSAGE_KIND_SAMPLE,
        "document_id": "doc_1",
        "number": 3,
        "source": "wiki",
        "language": "en",
        "text": TEXT,
        "start": TEXT.index("Ms"),
        "end": TEXT.index("After"),
        "stretches": [
            review_pb2.PassageStretch(start=ward, end=ward + 4, kind=review_pb2.STRETCH_KIND_REPLACED),
            review_pb2.PassageStretch(
                start=name, end=name + 15, kind=review_pb2.STRETCH_KIND_DISAGREEMENT, entity_type="PERSON"
            ),
        ],
        "replaced_known": True,
        "entity_types": ["PERSON", "CLIENT", "EMAIL_ADDRESS"],
    }
    return review_pb2.ReviewPassage(**(values | changes))


def report(**changes: Any) -> review_pb2.GetResidualReportResponse:
    overall = review_pb2.ResidualEstimate(
        passages=9_000, drawn=400, reviewed=400, any=SHARE, types={"PERSON": SHARE}, values={"PERSON": 23}
    )
    wiki = review_pb2.ResidualEstimate()
    wiki.CopyFrom(overall)
    wiki.source, wiki.language = "wiki", "en"
    values: dict[str, Any] = {
        "sample": review_pb2.ResidualSample(sample_id="smp_1", seed=7, passages_now=9_500),
        "overall": overall,
        "strata": [wiki, review_pb2.ResidualEstimate(source="mail", language="de", passages=10, drawn=5)],
        "waiting": review_pb2.QueueCounts(sample=2, disagreement=1),
        "rare_combinations": 4,
    }
    return review_pb2.GetResidualReportResponse(**(values | changes))


class FakeReview(review_pb2_grpc.ReviewServiceServicer):
    """Remembers decisions, of which the last can be undone. `waits` says if a passage waits."""

    def __init__(self) -> None:
        self.waits = True
        self.down = False
        self.report = report()
        self.draws: list[review_pb2.DrawSampleRequest] = []
        self.decisions: list[review_pb2.DecidePassageRequest] = []
        self.kinds: list[int] = []
        self.terms: list[str] = []
        self.undone: list[str] = []

    def _check(self, context: Any) -> None:
        if self.down:
            refuse(context, Unavailable(Reason.UNAVAILABLE, "anonymization does not answer."))

    def DrawSample(self, request: Any, context: Any) -> Any:
        self.draws.append(request)
        return review_pb2.DrawSampleResponse(sample_id="smp_1", drawn=400, passages=9_000, documents=700)

    def NextPassage(self, request: Any, context: Any) -> Any:
        self._check(context)
        self.kinds.append(request.kind)
        found = passage() if self.waits else None
        return review_pb2.NextPassageResponse(passage=found, waiting=self.report.waiting)

    def DecidePassage(self, request: Any, context: Any) -> Any:
        if request.passage_id != PASSAGE:
            refuse(context, NotFound(Reason.UNKNOWN_PASSAGE, "There is no such passage."))
        if any(mark.start == 0 for mark in request.marks):
            violations = {"marks[0]": "must start within the passage"}
            refuse(
                context, InvalidArgument(Reason.INVALID_MARKS, "The marks are invalid.", field_violations=violations)
            )
        self.decisions.append(request)
        return review_pb2.DecidePassageResponse()

    def UndoDecision(self, request: Any, context: Any) -> Any:
        if self.undone:
            refuse(context, NotFound(Reason.NOTHING_TO_UNDO, "You have no decision that can be taken back."))
        self.undone.append(request.reviewer)
        return review_pb2.UndoDecisionResponse(passage_id=PASSAGE)

    def DropTerm(self, request: Any, context: Any) -> Any:
        self.terms.append(request.term)
        return review_pb2.DropTermResponse()

    def GetPassage(self, request: Any, context: Any) -> Any:
        if request.number > 3:
            refuse(context, NotFound(Reason.UNKNOWN_PASSAGE, "There is no such passage."))
        found = passage(passage_id="", document_id=request.document_id, number=request.number)
        return review_pb2.GetPassageResponse(passage=found)

    def GetResidualReport(self, request: Any, context: Any) -> Any:
        self._check(context)
        return self.report

    def ListRareCombinations(self, request: Any, context: Any) -> Any:
        self._check(context)
        number = int(request.page_token or 0)
        item = review_pb2.RareCombination(
            document_id=f"doc_{number}", entity_types=["JOB_TITLE", "LOCATION"], documents=1 + number, number=3
        )
        return review_pb2.ListRareCombinationsResponse(combinations=[item], next_page_token="" if number else "1")

    def SignStatement(self, request: Any, context: Any) -> Any:
        statement = review_pb2.SignedStatement(body='{"kind": "statement"}', signature=b"\x01", public_key=b"\x02")
        return review_pb2.SignStatementResponse(statement=statement)

    def VerifyStatement(self, request: Any, context: Any) -> Any:
        return review_pb2.VerifyStatementResponse(valid=request.statement.body == '{"kind": "statement"}')
