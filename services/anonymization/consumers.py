"""Events on the wire to the domain, and back."""

from collections.abc import Callable, Container

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from services.anonymization.domain import Ingested, Outcome, Passed
from services.anonymization.handlers import Barrier, pass_document
from services.anonymization.spans import Span
from tailor.api.common.v1 import common_pb2
from tailor.api.events.v1 import documents_pb2
from tailor.errors import InvalidArgument, Reason
from tailor.events.envelope import Event, decode, derive_id
from tailor.events.producer import Producer
from tailor.storage.ref import Ref

INGESTED = "document.ingested.v1"
ANONYMIZED = "document.anonymized.v1"
REJECTED = "document.rejected.v1"


def on_ingested(barrier: Barrier, erased: Container[str] = frozenset()) -> Callable[[Event], None]:
    """The handler of document.ingested.v1. What is erased is taken out of quarantine and goes no further."""

    def handle(event: Event) -> None:
        ingested = to_ingested(decode(event, documents_pb2.DocumentIngested))
        if ingested.document_id in erased:
            barrier.quarantine.delete(ingested.text)
        else:
            pass_document(barrier, ingested)

    return handle


def to_ingested(message: documents_pb2.DocumentIngested) -> Ingested:
    """The event as the domain sees it; InvalidArgument where it names no document or no text."""
    if not message.document_id or message.version.sequence < 1 or not message.text.uri:
        raise InvalidArgument(Reason.INCOMPLETE_EVENT, "The event names no document, version or text.")
    labels = message.labels
    return Ingested(
        document_id=message.document_id,
        submission_id=message.submission_id,
        sequence=message.version.sequence,
        digest=message.version.digest,
        kind=message.kind,
        labels=(labels.source, labels.department, labels.confidentiality),
        text=Ref(message.text.uri, message.text.sha256, message.text.size_bytes),
        format=message.format,
        draft_id=message.draft_id,
        spans=tuple(Span(span.kind, span.number, span.level, span.start, span.end) for span in message.spans),
    )


class ProducedFacts:
    """States outcomes through a producer."""

    def __init__(self, producer: Producer) -> None:
        self._producer = producer

    def state(self, outcome: Outcome) -> None:
        """Send the event of an outcome."""
        topic, message = to_message(outcome)
        ingested = outcome.ingested
        event_id = derive_id("evt", topic, ingested.document_id, ingested.sequence)
        self._producer.send(topic, ingested.document_id, message, event_id)


def to_message(outcome: Outcome) -> tuple[str, Message]:
    """Topic and message of an outcome."""
    ingested = outcome.ingested
    labels = common_pb2.Labels(
        source=ingested.labels[0], department=ingested.labels[1], confidentiality=ingested.labels[2]
    )
    moment = Timestamp()
    moment.FromMilliseconds(outcome.time_ms)
    if isinstance(outcome, Passed):
        return ANONYMIZED, documents_pb2.DocumentAnonymized(
            document_id=ingested.document_id,
            submission_id=ingested.submission_id,
            version=common_pb2.Version(sequence=ingested.sequence, digest=ingested.digest),
            kind=common_pb2.Kind.ValueType(ingested.kind),
            labels=labels,
            text=common_pb2.ObjectRef(
                uri=outcome.text.uri, sha256=outcome.text.sha256, size_bytes=outcome.text.size_bytes
            ),
            format=ingested.format,
            char_count=outcome.char_count,
            findings=outcome.findings,
            policy_digest=outcome.policy_digest,
            draft_id=ingested.draft_id,
            create_time=moment,
            language=outcome.language,
            spans=map(_span, outcome.spans),
        )
    return REJECTED, documents_pb2.DocumentRejected(
        document_id=ingested.document_id,
        submission_id=ingested.submission_id,
        stage=documents_pb2.STAGE_ANONYMIZATION,
        reason=documents_pb2.REJECTION_REASON_UNREADABLE,
        hint=outcome.hint,
        labels=labels,
        format=ingested.format,
        create_time=moment,
    )


def _span(span: Span) -> common_pb2.Span:
    kind = common_pb2.SpanKind.ValueType(span.kind)
    return common_pb2.Span(kind=kind, number=span.number, level=span.level, start=span.start, end=span.end)
