"""The barrier: for texts that come from no document, and for what it says of the documents that passed."""

from collections.abc import Iterable, Sequence

import grpc

from services.synthetic.domain import CleanTexts, OverRedaction
from tailor.api.anonymization.v1 import (
    anonymization_pb2,
    anonymization_pb2_grpc,
    replaced_pb2,
    replaced_pb2_grpc,
    review_pb2,
    review_pb2_grpc,
)
from tailor.errors import DeadlineExceeded, Unavailable
from tailor.logging import get_logger
from tailor.rpc.channel import wire_errors
from tailor.values import Labels, Selection
from tailor.wire import from_labels

TIMEOUT_SECONDS = 30
MEASURE_SECONDS = 300

log = get_logger(__name__)


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
