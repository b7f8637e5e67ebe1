"""Publishes anonymization's outcomes to Kafka."""

from services.anonymization.domain import DocumentOutcome
from services.anonymization.ports import OutcomePublisher
from services.anonymization.wire import to_event
from tailor.events.envelope import derive_id
from tailor.events.producer import Producer


class KafkaOutcomes(OutcomePublisher):
    """Publishes document.anonymized.v1 and document.rejected.v1."""

    def __init__(self, producer: Producer) -> None:
        self._producer = producer

    def publish(self, outcome: DocumentOutcome) -> None:
        topic, message = to_event(outcome)
        document_id = outcome.ingested.document_id
        event_id = derive_id("evt", topic, document_id, outcome.ingested.sequence)
        self._producer.send(topic, document_id, message, event_id)
