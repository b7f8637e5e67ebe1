"""Publish raw records, as any outside producer does."""

from collections.abc import Callable
from typing import Protocol

import kafka
from kafka.errors import KafkaError

from tailor.cli.records import Record
from tailor.errors import Reason, Unavailable
from tailor.settings import KafkaSettings

ACK_SECONDS = 60.0


class RecordProducer(Protocol):
    """Publishes records."""

    def send(self, record: Record) -> Callable[[], None]:
        """Start to send. Call the result to wait for the acknowledgement; it raises Unavailable if there is none."""
        ...


class KafkaRecordProducer(RecordProducer):
    """Sends to Kafka idempotently; all in-sync replicas acknowledge."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._topic_prefix = settings.kafka_topic_prefix
        try:
            self._client = kafka.KafkaProducer(
                acks="all",
                enable_idempotence=True,
                linger_ms=5,
                max_block_ms=20_000,
                client_id="tailor-publish",
                **settings.kafka_arguments(),
            )
        except KafkaError as error:
            raise _unavailable(error) from None

    def send(self, record: Record) -> Callable[[], None]:
        headers = [(name, value.encode()) for name, value in record.headers.items()]
        try:
            topic = self._topic_prefix + record.topic
            future = self._client.send(topic, key=record.key.encode(), value=record.value, headers=headers)
        except KafkaError as error:
            raise _unavailable(error) from None

        def wait() -> None:
            try:
                future.get(ACK_SECONDS)
            except KafkaError as error:
                raise _unavailable(error) from None

        return wait

    def close(self) -> None:
        """Flush and disconnect."""
        self._client.close(timeout=10)


def _unavailable(error: KafkaError) -> Unavailable:
    return Unavailable(
        Reason.KAFKA_UNAVAILABLE,
        f"The broker does not answer ({type(error).__name__}). Publish again; documents that arrived are rejected as duplicates.",
    )
