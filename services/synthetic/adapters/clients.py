"""Clients of the barrier, the registry and inference, over gRPC."""

from collections.abc import Iterable, Iterator, Sequence

import grpc

from services.synthetic import wire
from services.synthetic.domain import CleanTexts, DocumentPage, DrawnPrompt, OverRedaction
from tailor.api.anonymization.v1 import (
    anonymization_pb2,
    anonymization_pb2_grpc,
    replaced_pb2,
    replaced_pb2_grpc,
    review_pb2,
    review_pb2_grpc,
)
from tailor.api.inference.v1 import inference_pb2, inference_pb2_grpc
from tailor.api.registry.v1 import judging_pb2, judging_pb2_grpc, registry_pb2, registry_pb2_grpc
from tailor.errors import DeadlineExceeded, Unavailable
from tailor.logging import get_logger
from tailor.rpc.channel import wire_errors
from tailor.values import Labels, Selection
from tailor.wire import from_labels

log = get_logger(__name__)

TIMEOUT_SECONDS, MEASURE_SECONDS, ANSWER_SECONDS = 30, 300, 180
PAGE = 500


class RowAnonymizer:
    """A `ports.AnonymizeRow`. Blocks for at most TIMEOUT_SECONDS. Thread-safe."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._stub = anonymization_pb2_grpc.AnonymizationServiceStub(channel)

    def __call__(self, row_id: str, texts: Sequence[str], labels: Labels) -> CleanTexts:
        request = anonymization_pb2.AnonymizeRowRequest(row_id=row_id, texts=texts, labels=from_labels(labels))
        with wire_errors("anonymization"):
            response = self._stub.AnonymizeRow(request, timeout=TIMEOUT_SECONDS)
        return CleanTexts(tuple(response.texts), response.surrogates)


class OverRedactionMeasure:
    """A `ports.MeasureOverRedaction` with the installation's limit. Not known if the barrier does not answer in time. Thread-safe."""

    def __init__(self, channel: grpc.Channel, limit: float) -> None:
        self._stub = replaced_pb2_grpc.ReplacedServiceStub(channel)
        self._limit = limit

    def __call__(self, document_ids: Iterable[Sequence[str]]) -> OverRedaction:
        requests = (replaced_pb2.MeasureOverRedactionRequest(document_ids=ids) for ids in document_ids)
        try:
            with wire_errors("anonymization"):
                answer = self._stub.MeasureOverRedaction(requests, timeout=MEASURE_SECONDS)
        except (Unavailable, DeadlineExceeded) as error:
            # The rows are made: a figure is not worth making them again.
            log.warning("over-redaction is unknown", reason=error.reason)
            return OverRedaction()
        # Nothing is known of documents that passed before their replacements were counted.
        if not answer.words:
            return OverRedaction()
        return OverRedaction(1000 * answer.replacements / answer.words, self._limit)


class ResidualLimits:
    """A `ports.CheckResidual`. Blocks for at most TIMEOUT_SECONDS. Thread-safe."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._stub = review_pb2_grpc.ReviewServiceStub(channel)

    def __call__(self, selection: Selection) -> None:
        request = review_pb2.CheckResidualRequest(sources=selection.sources)
        with wire_errors("anonymization"):
            self._stub.CheckResidual(request, timeout=TIMEOUT_SECONDS)


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


class InferenceAnswers:
    """A `ports.AnswerPrompt`."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._stub = inference_pb2_grpc.InferenceServiceStub(channel)

    def __call__(self, specialist: str, prompt: DrawnPrompt) -> str:
        """Block for at most ANSWER_SECONDS."""
        request = inference_pb2.AnswerDrawnPromptRequest(
            specialist=specialist,
            messages=[inference_pb2.Message(role=role, content=content) for role, content in prompt.messages],
            document_ids=prompt.document_ids,
        )
        with wire_errors("inference"):
            return self._stub.AnswerDrawnPrompt(request, timeout=ANSWER_SECONDS).draft_id
