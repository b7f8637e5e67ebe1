"""Replaced strings in memory: two of them, of which data protection has seen none."""

from collections.abc import Iterator
from typing import Any

from tailor.api.anonymization.v1 import policy_pb2, replaced_pb2, replaced_pb2_grpc
from tailor.errors import FailedPrecondition, NotFound, Reason
from tests.fakes.serving import refuse

VALUES = {"winters": "SQL", "musiav.ark": "debian.org"}
PLACE = "EXEC Winters SELECT"


class FakeReplaced(replaced_pb2_grpc.ReplacedServiceServicer):
    """Remembers what was seen and decided."""

    def __init__(self) -> None:
        self.strings = [
            replaced_pb2.ReplacedString(
                entity_type="PERSON", surrogate="winters", times=60, documents=12, departments=5, sources=3
            ),
            replaced_pb2.ReplacedString(
                entity_type="USERNAME", surrogate="musiav.ark", times=84, documents=9, departments=4, sources=2
            ),
        ]
        self.seen: list[replaced_pb2.GetReplacedRequest] = []
        self.decisions: list[replaced_pb2.DecideReplacedRequest] = []

    def ListReplaced(self, request: Any, context: Any) -> Any:
        return replaced_pb2.ListReplacedResponse(strings=self.strings, documents=40, words=100_000, min_documents=5)

    def GetReplaced(self, request: Any, context: Any) -> Any:
        counts = next((item for item in self.strings if item.surrogate == request.surrogate), None)
        if counts is None:
            refuse(context, NotFound(Reason.UNKNOWN_REPLACED, "No such string."))
        self.seen.append(request)
        place = replaced_pb2.ReplacedPlace(document_id="doc_1", department="risk", text=PLACE, start=5, end=12)
        places = [] if request.without_places else [place]
        return replaced_pb2.GetReplacedResponse(counts=counts, value=VALUES[request.surrogate], places=places)

    def DecideReplaced(self, request: Any, context: Any) -> Any:
        if not any(seen.surrogate == request.surrogate and not seen.without_places for seen in self.seen):
            refuse(context, FailedPrecondition(Reason.PLACES_NOT_SEEN, "Look at the places first."))
        self.decisions.append(request)
        policy = policy_pb2.InstalledPolicy(generation=3, policy_digest="p" * 64, barrier_digest="b" * 64)
        return replaced_pb2.DecideReplacedResponse(policy=policy, outdated_documents=40)

    def MeasureOverRedaction(self, request_iterator: Iterator[Any], context: Any) -> Any:
        """Two replacements and a thousand words in each document but `doc_old`."""
        ids = [key for message in request_iterator for key in message.document_ids if key != "doc_old"]
        return replaced_pb2.MeasureOverRedactionResponse(
            replacements=2 * len(ids), words=1_000 * len(ids), documents=len(ids)
        )
