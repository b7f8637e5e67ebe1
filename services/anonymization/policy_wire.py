"""Translates policies and what is held about a person to messages."""

from google.protobuf.timestamp_pb2 import Timestamp

from services.anonymization.domain import HeldDocument, HeldSubject, InstalledPolicy, PolicyDecision, PolicyDifference
from tailor.api.anonymization.v1 import policy_pb2, subject_pb2
from tailor.api.events.v1 import policies_pb2
from tailor.codec import encode
from tailor.wire import from_labels

POLICY_APPLIED = "policy.applied.v1"
POLICY_KEY = "policy"


def from_installed(installed: InstalledPolicy) -> policies_pb2.PolicyApplied:
    """The event."""
    return encode(policies_pb2.PolicyApplied, installed)


def to_installed_message(installed: InstalledPolicy) -> policy_pb2.InstalledPolicy:
    """The entry of the history."""
    return encode(policy_pb2.InstalledPolicy, installed)


def from_decision(decision: PolicyDecision) -> policy_pb2.PolicyDecision:
    return encode(policy_pb2.PolicyDecision, decision)


def from_difference(difference: PolicyDifference) -> policy_pb2.PolicyDifference:
    return encode(policy_pb2.PolicyDifference, difference)


def from_held(held: HeldSubject) -> subject_pb2.DescribeSubjectResponse:
    return encode(subject_pb2.DescribeSubjectResponse, held, documents=map(_from_document, held.documents))


def _from_document(document: HeldDocument) -> subject_pb2.SubjectDocument:
    passed = document.passed
    if passed is None:
        return subject_pb2.SubjectDocument(document_id=document.document_id)
    moment, labels = Timestamp(), from_labels(passed.ingested.labels)
    moment.FromMilliseconds(passed.time_ms)
    return encode(
        subject_pb2.SubjectDocument, passed, document_id=document.document_id, labels=labels, create_time=moment
    )
