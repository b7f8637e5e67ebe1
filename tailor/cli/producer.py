"""Publish raw records, as any outside producer does."""

from collections.abc import Callable
from contextlib import suppress

import kafka
from kafka.errors import KafkaError, KafkaTimeoutError

from tailor.cli.records import Record
from tailor.errors import Reason, TailorError, Unavailable
from tailor.settings import KafkaSettings

ACK_SECONDS = 60.0


class KafkaRecordProducer:
    """Sends to Kafka idempotently; all in-sync replicas acknowledge. Creates no topic.

    `settings_of` gives the settings of who writes a topic. It connects when a topic is first written, once for each user.
    """

    def __init__(self, settings_of: Callable[[str], KafkaSettings]) -> None:
        self._settings_of = settings_of
        self._clients: dict[str, kafka.KafkaProducer] = {}

    def send(self, record: Record) -> Callable[[], None]:
        """Start to send. Call the result to wait for the acknowledgement; it raises Unavailable if there is none."""
        settings = self._settings_of(record.topic)
        headers = [(name, value.encode()) for name, value in record.headers.items()]
        topic = settings.kafka_topic_prefix + record.topic
        try:
            future = self._client(settings).send(topic, key=record.key.encode(), value=record.value, headers=headers)
        except KafkaError as error:
            raise _failed(error, settings, topic) from None

        def wait() -> None:
            try:
                future.get(ACK_SECONDS)
            except KafkaError as error:
                raise _failed(error, settings, topic) from None

        return wait

    def close(self) -> None:
        """Flush and disconnect."""
        for client in self._clients.values():
            client.close(timeout=10)

    def _client(self, settings: KafkaSettings) -> kafka.KafkaProducer:
        user = settings.kafka_user
        if user not in self._clients:
            self._clients[user] = kafka.KafkaProducer(
                acks="all",
                enable_idempotence=True,
                linger_ms=5,
                max_block_ms=20_000,
                allow_auto_create_topics=False,
                client_id="tailor-publish",
                **settings.kafka_arguments(),
            )
        return self._clients[user]


def _failed(error: KafkaError, settings: KafkaSettings, topic: str) -> TailorError:
    """The error for a publisher: it names the topic and the right that is missing."""
    # Late, because services' metrics come with it.
    from tailor.events.clients import find_unusable, to_tailor_error

    if isinstance(error, KafkaTimeoutError):
        with suppress(Unavailable):
            unusable = find_unusable(settings, [topic], "WRITE")
            if topic in unusable:
                return unusable[topic]
    failed = to_tailor_error(error, user=settings.kafka_user, right="WRITE", topic=topic)
    if failed.reason != Reason.KAFKA_UNAVAILABLE:
        return failed
    return Unavailable(
        Reason.KAFKA_UNAVAILABLE,
        f"The broker does not answer ({type(error).__name__}). Publish again; documents that arrived are rejected as duplicates.",
    )
