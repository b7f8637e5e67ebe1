"""Calls of the barrier, the registry and inference, over gRPC. Thread-safe, as stubs are."""

from collections.abc import Iterable, Iterator, Sequence

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


def anonymize_row(
    stub: anonymization_pb2_grpc.AnonymizationServiceStub, row_id: str, texts: Sequence[str], labels: Labels
) -> CleanTexts:
    """A `ports.AnonymizeRow`. Blocks for at most TIMEOUT_SECONDS."""
    request = anonymization_pb2.AnonymizeRowRequest(row_id=row_id, texts=texts, labels=from_labels(labels))
    with wire_errors("anonymization"):
        response = stub.AnonymizeRow(request, timeout=TIMEOUT_SECONDS)
    return CleanTexts(tuple(response.texts), response.surrogates)


def measure_over_redaction(
    stub: replaced_pb2_grpc.ReplacedServiceStub, limit: float, document_ids: Iterable[Sequence[str]]
) -> OverRedaction:
    """A `ports.MeasureOverRedaction` with the installation's limit. Not known if the barrier does not answer in time."""
    requests = (replaced_pb2.MeasureOverRedactionRequest(document_ids=ids) for ids in document_ids)
    try:
        with wire_errors("anonymization"):
            answer = stub.MeasureOverRedaction(requests, timeout=MEASURE_SECONDS)
    except (Unavailable, DeadlineExceeded) as error:
        # The rows are made: a figure is not worth making them again.
        log.warning("over-redaction is unknown", reason=error.reason)
        return OverRedaction()
    # Nothing is known of documents that passed before their replacements were counted.
    return OverRedaction(1000 * answer.replacements / answer.words, limit) if answer.words else OverRedaction()


def check_residual(stub: review_pb2_grpc.ReviewServiceStub, selection: Selection) -> None:
    """A `ports.CheckResidual`. Blocks for at most TIMEOUT_SECONDS."""
    with wire_errors("anonymization"):
        stub.CheckResidual(review_pb2.CheckResidualRequest(sources=selection.sources), timeout=TIMEOUT_SECONDS)


def list_documents(
    stub: registry_pb2_grpc.RegistryServiceStub, specialist: str, changed_since: int
) -> Iterator[DocumentPage]:
    """A `ports.ListDocuments`. Blocks for at most TIMEOUT_SECONDS per page."""
    request = registry_pb2.ListDocumentsRequest(specialist=specialist, page_size=PAGE, changed_since=changed_since)
    cursor = 0
    while True:
        with wire_errors("registry"):
            page = stub.ListDocuments(request, timeout=TIMEOUT_SECONDS)
        # Later pages have none: what changed meanwhile may have an id on an earlier page.
        cursor = cursor or page.cursor
        documents = (document for document in page.documents if document.HasField("anonymized"))
        yield DocumentPage(tuple(wire.to_document(document.anonymized) for document in documents), cursor)
        request.page_token = page.next_page_token
        if not request.page_token:
            return


def count_waiting(stub: judging_pb2_grpc.JudgingServiceStub, specialist: str) -> tuple[int, int]:
    """A `ports.CountWaiting`. Blocks for at most TIMEOUT_SECONDS."""
    request = judging_pb2.CountDrawnPromptsRequest(specialist=specialist)
    with wire_errors("registry"):
        answer = stub.CountDrawnPrompts(request, timeout=TIMEOUT_SECONDS)
    return answer.waiting, answer.max_waiting


def answer_prompt(stub: inference_pb2_grpc.InferenceServiceStub, specialist: str, prompt: DrawnPrompt) -> str:
    """A `ports.AnswerPrompt`. Blocks for at most ANSWER_SECONDS."""
    request = inference_pb2.AnswerDrawnPromptRequest(
        specialist=specialist,
        messages=[inference_pb2.Message(role=role, content=content) for role, content in prompt.messages],
        document_ids=prompt.document_ids,
    )
    with wire_errors("inference"):
        return stub.AnswerDrawnPrompt(request, timeout=ANSWER_SECONDS).draft_id
