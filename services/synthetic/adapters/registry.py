"""Lists the documents of a specialist in the registry and those that its last evaluations missed, and counts its drawn prompts."""

from collections.abc import Iterator, Sequence

import grpc

from services.synthetic import wire
from services.synthetic.domain import DocumentPage
from tailor.api.registry.v1 import judging_pb2, judging_pb2_grpc, registry_pb2, registry_pb2_grpc
from tailor.rpc.channel import wire_errors

PAGE = 500
TIMEOUT_SECONDS = 30


class RegistryDocuments:
    """A `ports.ListDocuments`."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._stub = registry_pb2_grpc.RegistryServiceStub(channel)

    def __call__(self, specialist: str, changed_since: int) -> Iterator[DocumentPage]:
        """Yield pages. Blocks for at most TIMEOUT_SECONDS per page."""
        request = registry_pb2.ListDocumentsRequest(specialist=specialist, page_size=PAGE, changed_since=changed_since)
        token, cursor = "", 0
        while True:
            request.page_token = token
            with wire_errors("registry"):
                page = self._stub.ListDocuments(request, timeout=TIMEOUT_SECONDS)
            # Later pages have none: what changed meanwhile may have an id on an earlier page.
            cursor = cursor or page.cursor
            documents = (document for document in page.documents if document.HasField("anonymized"))
            yield DocumentPage(tuple(wire.to_document(document.anonymized) for document in documents), cursor)
            token = page.next_page_token
            if not token:
                return


class RegistryScores:
    """A `ports.ListMissed`."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._stub = registry_pb2_grpc.RegistryServiceStub(channel)

    def __call__(self, specialist: str) -> Iterator[Sequence[str]]:
        """Yield pages. Blocks for at most TIMEOUT_SECONDS per page."""
        request = registry_pb2.ListDocumentScoresRequest(specialist=specialist, only_missed=True, page_size=PAGE)
        while True:
            with wire_errors("registry"):
                page = self._stub.ListDocumentScores(request, timeout=TIMEOUT_SECONDS)
            yield [score.document_id for score in page.scores]
            request.page_token = page.next_page_token
            if not request.page_token:
                return


class RegistryQueue:
    """A `ports.CountWaiting`."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._stub = judging_pb2_grpc.JudgingServiceStub(channel)

    def __call__(self, specialist: str) -> tuple[int, int]:
        """Block for at most TIMEOUT_SECONDS."""
        request = judging_pb2.CountDrawnPromptsRequest(specialist=specialist)
        with wire_errors("registry"):
            answer = self._stub.CountDrawnPrompts(request, timeout=TIMEOUT_SECONDS)
        return answer.waiting, answer.max_waiting
