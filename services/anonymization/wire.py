"""Translates anonymization's messages to its domain and back, so that rules know no protobuf. A new field of a message is added here."""

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from services.anonymization.domain import UNREADABLE, Anonymized, DocumentOutcome, Ingested, InstalledPolicy, Passed
from tailor.api.anonymization.v1 import anonymization_pb2
from tailor.api.common.v1 import common_pb2
from tailor.api.events.v1 import documents_pb2, policies_pb2
from tailor.codec import decode, encode
from tailor.errors import InvalidArgument, Reason
from tailor.events.envelope import derive_id
from tailor.events.producer import Producer
from tailor.wire import to_span

ANONYMIZED = "document.anonymized.v1"
REJECTED = "document.rejected.v1"
POLICY_APPLIED = "policy.applied.v1"
POLICY_KEY = "policy"


def to_ingested(message: documents_pb2.DocumentIngested) -> Ingested:
    """Raises InvalidArgument (INCOMPLETE_EVENT) and names the missing fields."""
    required = {
        "document_id": message.document_id,
        "version.sequence": message.version.sequence > 0,
        "text.uri": message.text.uri,
    }
    if missing := [field for field, is_given in required.items() if not is_given]:
        raise InvalidArgument(Reason.INCOMPLETE_EVENT, f"The event lacks {', '.join(missing)}.")
    spans = map(to_span, message.spans)
    return decode(
        Ingested,
        message,
        sequence=message.version.sequence,
        digest=message.version.digest,
        spans=tuple(span for span in spans if span is not None),
    )


def to_event(outcome: DocumentOutcome) -> tuple[str, Message]:
    """Topic and message of an outcome."""
    ingested = outcome.ingested
    version = common_pb2.Version(sequence=ingested.sequence, digest=ingested.digest)
    moment = from_milliseconds(outcome.time_ms)
    if isinstance(outcome, Passed):
        passed = encode(documents_pb2.DocumentAnonymized, outcome, version=version, create_time=moment)
        passed.MergeFrom(encode(documents_pb2.DocumentAnonymized, ingested, text=None, spans=()))
        return ANONYMIZED, passed
    # A text that could not be read says nothing about the earlier version, which stays.
    is_refused = bool(ingested.supersede_id) and outcome.reason != UNREADABLE
    return REJECTED, encode(
        documents_pb2.DocumentRejected,
        ingested,
        stage=documents_pb2.STAGE_ANONYMIZATION,
        reason=documents_pb2.RejectionReason.Value(f"REJECTION_REASON_{outcome.reason}"),
        hint=outcome.hint,
        create_time=moment,
        supersede_id=ingested.supersede_id if is_refused else "",
        version=version if is_refused else None,
    )


def from_milliseconds(time_ms: int) -> Timestamp:
    moment = Timestamp()
    moment.FromMilliseconds(time_ms)
    return moment


def publish(producer: Producer, outcome: DocumentOutcome) -> None:
    """Send an outcome and block until the broker has it. The same outcome always gives the same event."""
    (topic, message), ingested = to_event(outcome), outcome.ingested
    producer.send(
        topic, ingested.document_id, message, derive_id("evt", topic, ingested.document_id, ingested.sequence)
    )


def announce(producer: Producer, installed: InstalledPolicy) -> None:
    """Send what is in force and block until the broker has it. The same policy always gives the same event."""
    event_id = derive_id("evt", POLICY_APPLIED, installed.generation, installed.barrier_digest)
    producer.send(POLICY_APPLIED, POLICY_KEY, encode(policies_pb2.PolicyApplied, installed), event_id)


def from_preview(preview: Anonymized) -> anonymization_pb2.PreviewAnonymizationResponse:
    changes = [encode(anonymization_pb2.Change, change) for change in preview.changes[0]]
    return encode(anonymization_pb2.PreviewAnonymizationResponse, preview, text=preview.texts[0], changes=changes)
