"""Translates anonymization's messages to its domain and back, so that rules know no protobuf. A new field of a message is added here."""

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from services.anonymization.domain import UNREADABLE, Action, Anonymized, Change, DocumentOutcome, Ingested, Passed
from tailor.api.anonymization.v1 import anonymization_pb2
from tailor.api.common.v1 import common_pb2
from tailor.api.events.v1 import documents_pb2
from tailor.errors import InvalidArgument, Reason
from tailor.wire import from_labels, from_ref, from_span, to_labels, to_ref, to_span

ANONYMIZED = "document.anonymized.v1"
REJECTED = "document.rejected.v1"
ACTIONS = {
    Action.SURROGATE: anonymization_pb2.ACTION_SURROGATE,
    Action.MASK: anonymization_pb2.ACTION_MASK,
    Action.GENERALISE: anonymization_pb2.ACTION_GENERALISE,
}


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
    return Ingested(
        document_id=message.document_id,
        submission_id=message.submission_id,
        sequence=message.version.sequence,
        digest=message.version.digest,
        kind=message.kind,
        labels=to_labels(message.labels),
        text=to_ref(message.text),
        format=message.format,
        draft_id=message.draft_id,
        spans=tuple(span for span in spans if span is not None),
        supersede_id=message.supersede_id,
        removed=dict(message.removed),
    )


def to_event(outcome: DocumentOutcome) -> tuple[str, Message]:
    """Topic and message of an outcome."""
    ingested = outcome.ingested
    moment = Timestamp()
    moment.FromMilliseconds(outcome.time_ms)
    if isinstance(outcome, Passed):
        return ANONYMIZED, documents_pb2.DocumentAnonymized(
            document_id=ingested.document_id,
            submission_id=ingested.submission_id,
            version=common_pb2.Version(sequence=ingested.sequence, digest=ingested.digest),
            kind=common_pb2.Kind.ValueType(ingested.kind),
            labels=from_labels(ingested.labels),
            text=from_ref(outcome.text),
            format=ingested.format,
            char_count=outcome.char_count,
            findings=outcome.findings,
            policy_digest=outcome.policy_digest,
            draft_id=ingested.draft_id,
            create_time=moment,
            language=outcome.language,
            spans=map(from_span, outcome.spans),
            supersede_id=ingested.supersede_id,
            removed=ingested.removed,
            detectors_digest=outcome.detectors_digest,
            rules_only_languages=outcome.rules_only_languages,
        )
    # A text that could not be read says nothing about the earlier version, which stays.
    is_refused = bool(ingested.supersede_id) and outcome.reason != UNREADABLE
    return REJECTED, documents_pb2.DocumentRejected(
        document_id=ingested.document_id,
        submission_id=ingested.submission_id,
        stage=documents_pb2.STAGE_ANONYMIZATION,
        reason=documents_pb2.RejectionReason.Value(f"REJECTION_REASON_{outcome.reason}"),
        hint=outcome.hint,
        labels=from_labels(ingested.labels),
        format=ingested.format,
        create_time=moment,
        supersede_id=ingested.supersede_id if is_refused else "",
        version=common_pb2.Version(sequence=ingested.sequence, digest=ingested.digest) if is_refused else None,
    )


def from_change(change: Change) -> anonymization_pb2.Change:
    return anonymization_pb2.Change(
        start=change.start,
        end=change.end,
        entity_type=change.entity_type,
        action=ACTIONS[change.action],
        replacement=change.replacement,
    )


def from_preview(preview: Anonymized) -> anonymization_pb2.PreviewAnonymizationResponse:
    return anonymization_pb2.PreviewAnonymizationResponse(
        text=preview.texts[0],
        findings=preview.findings,
        changes=map(from_change, preview.changes[0]),
        policy_digest=preview.policy_digest,
        rules_only_languages=preview.rules_only_languages,
    )
