"""Producing events."""

from typing import Protocol

import kafka
from google.protobuf.message import Message
from kafka.errors import KafkaError

from tailor.errors import Unavailable
from tailor.events.envelope import headers_for
from tailor.settings import KafkaSettings

ACK_SECONDS = 30


class Producer(Protocol):
    """States facts."""

    def send(self, topic: str, key: str, message: Message, event_id: str) -> None:
        """Send one event and wait until the broker has it; Unavailable if it does not answer. The same id again is the same fact."""
        ...


class KafkaProducer:
    """Sends to Kafka, idempotent and acknowledged by all replicas. Thread-safe."""

    def __init__(self, client: "kafka.KafkaProducer", source: str) -> None:
        self._client = client
        self._source = source

    @classmethod
    def from_settings(cls, settings: KafkaSettings, source: str) -> "KafkaProducer":
        """Connect; Unavailable while no broker answers."""
        try:
            client = kafka.KafkaProducer(
                acks="all",
                enable_idempotence=True,
                linger_ms=2,
                max_block_ms=10_000,
                client_id=source,
                **settings.kafka_arguments(),
            )
        except KafkaError as error:
            raise Unavailable("KAFKA_UNAVAILABLE", f"The broker does not answer ({type(error).__name__}).") from None
        return cls(client, source)

    def send(self, topic: str, key: str, message: Message, event_id: str) -> None:
        """Send one event and wait until the broker has it."""
        headers = [
            (name, value.encode()) for name, value in headers_for(topic, message, self._source, event_id).items()
        ]
        try:
            self._client.send(
                topic, key=key.encode(), value=message.SerializeToString(deterministic=True), headers=headers
            ).get(ACK_SECONDS)
        except KafkaError as error:
            raise Unavailable(
                "KAFKA_UNAVAILABLE", f"The broker did not take the event ({type(error).__name__})."
            ) from None

    def close(self) -> None:
        """Flush and disconnect."""
        self._client.close(timeout=5)
