"""Translates policies and what is held about a person to messages."""

from google.protobuf.timestamp_pb2 import Timestamp

from services.anonymization.domain import HeldDocument, HeldSubject, InstalledPolicy, PolicyDecision, PolicyDifference
from tailor.api.anonymization.v1 import policy_pb2, subject_pb2
from tailor.api.events.v1 import policies_pb2
from tailor.wire import from_labels

POLICY_APPLIED = "policy.applied.v1"
POLICY_KEY = "policy"


def from_installed(installed: InstalledPolicy) -> policies_pb2.PolicyApplied:
    """The event."""
    return policies_pb2.PolicyApplied(
        generation=installed.generation,
        policy_digest=installed.policy_digest,
        detectors_digest=installed.detectors_digest,
        barrier_digest=installed.barrier_digest,
        create_time=_time(installed),
    )


def to_installed_message(installed: InstalledPolicy) -> policy_pb2.InstalledPolicy:
    """The entry of the history."""
    return policy_pb2.InstalledPolicy(
        generation=installed.generation,
        policy_digest=installed.policy_digest,
        detectors_digest=installed.detectors_digest,
        installed_by=installed.installed_by,
        create_time=_time(installed),
        barrier_digest=installed.barrier_digest,
    )


def from_decision(decision: PolicyDecision) -> policy_pb2.PolicyDecision:
    return policy_pb2.PolicyDecision(
        entity_type=decision.entity_type, action=decision.action, rule=decision.rule, labels=decision.labels
    )


def from_difference(difference: PolicyDifference) -> policy_pb2.PolicyDifference:
    return policy_pb2.PolicyDifference(
        entity_type=difference.entity_type,
        labels=from_labels(difference.labels),
        before=difference.before,
        after=difference.after,
        documents=difference.documents,
        values=difference.values,
    )


def from_held(held: HeldSubject) -> subject_pb2.DescribeSubjectResponse:
    return subject_pb2.DescribeSubjectResponse(
        entity_type=held.entity_type,
        documents=map(_from_document, held.documents),
        vault_entries=held.vault_entries,
        suppressed=held.suppressed,
    )


def _from_document(document: HeldDocument) -> subject_pb2.SubjectDocument:
    passed = document.passed
    if passed is None:
        return subject_pb2.SubjectDocument(document_id=document.document_id)
    moment = Timestamp()
    moment.FromMilliseconds(passed.time_ms)
    return subject_pb2.SubjectDocument(
        document_id=document.document_id,
        labels=from_labels(passed.ingested.labels),
        findings=passed.findings,
        create_time=moment,
        policy_digest=passed.policy_digest,
        language=passed.language,
    )


def _time(installed: InstalledPolicy) -> Timestamp:
    moment = Timestamp()
    moment.FromDatetime(installed.create_time)
    return moment
