"""Publishes anonymization's outcomes, and the policy in force, to Kafka."""

from services.anonymization.domain import DocumentOutcome, InstalledPolicy
from services.anonymization.policy_wire import POLICY_APPLIED, POLICY_KEY, from_installed
from services.anonymization.ports import OutcomePublisher, PolicyAnnouncer
from services.anonymization.wire import to_event
from tailor.events.envelope import derive_id
from tailor.events.producer import Producer


class KafkaPolicies(PolicyAnnouncer):
    """Publishes policy.applied.v1."""

    def __init__(self, producer: Producer) -> None:
        self._producer = producer

    def announce(self, installed: InstalledPolicy) -> None:
        message = from_installed(installed)
        event_id = derive_id("evt", POLICY_APPLIED, installed.generation, installed.barrier_digest)
        self._producer.send(POLICY_APPLIED, POLICY_KEY, message, event_id)


class KafkaOutcomes(OutcomePublisher):
    """Publishes document.anonymized.v1 and document.rejected.v1."""

    def __init__(self, producer: Producer) -> None:
        self._producer = producer

    def publish(self, outcome: DocumentOutcome) -> None:
        topic, message = to_event(outcome)
        document_id = outcome.ingested.document_id
        event_id = derive_id("evt", topic, document_id, outcome.ingested.sequence)
        self._producer.send(topic, document_id, message, event_id)
