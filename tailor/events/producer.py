"""Publishes events to Kafka. A change in SQL uses `outbox.py` instead, so that change and event happen together."""

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

from google.protobuf.message import Message
from kafka.errors import (
    KafkaError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    RecordListTooLargeError,
    TopicAuthorizationFailedError,
)

from tailor.events.clients import broker_errors, find_unusable, open_producer
from tailor.events.envelope import headers_for
from tailor.logging import get_logger
from tailor.settings import KafkaSettings

log = get_logger(__name__)

ACK_SECONDS = 30
# Errors of one record, after which the client sends others.
OF_ONE_RECORD = (MessageSizeTooLargeError, RecordListTooLargeError, TopicAuthorizationFailedError)


class Producer(Protocol):
    """Publishes events."""

    def send(self, topic: str, key: str, message: Message, event_id: str) -> None:
        """Publish one event. Blocks until the broker acknowledged it; raises Unavailable if it does not.

        Raises InvalidArgument (EVENT_TOO_LARGE) if the broker will never take it. Consumers treat events with the same id as one.
        """
        ...


class KafkaProducer(Producer):
    """Publishes to Kafka, acknowledged by all in-sync replicas. Thread-safe."""

    def __init__(
        self,
        client: Any,
        source: str,
        settings: KafkaSettings | None = None,
        reopen: Callable[[], Any] | None = None,
    ) -> None:
        self._client = client
        self._source = source
        self._settings = settings
        self._reopen = reopen
        self._lock = threading.Lock()

    @classmethod
    def from_settings(cls, settings: KafkaSettings, source: str) -> "KafkaProducer":
        """Connect. Raises Unavailable while no broker answers."""

        def connect() -> Any:
            return open_producer(
                settings,
                acks="all",
                enable_idempotence=True,
                # Every send waits for the acknowledgement, so lingering for more events would only delay it.
                linger_ms=0,
                max_block_ms=10_000,
                client_id=source,
            )

        return cls(connect(), source, settings, connect)

    def send(self, topic: str, key: str, message: Message, event_id: str) -> None:
        attributes = headers_for(topic, message, self._source, event_id)
        headers = [(name, value.encode()) for name, value in attributes.items()]
        value = message.SerializeToString(deterministic=True)
        name = f"{self._settings.kafka_topic_prefix}{topic}" if self._settings else topic
        client = self._connected()
        with broker_errors(self._settings, right="WRITE", topic=name):
            try:
                client.send(name, key=key.encode(), value=value, headers=headers).get(ACK_SECONDS)
            except KafkaTimeoutError:
                # kafka-python waits for a topic that does not exist as it waits for a lost broker.
                unusable = find_unusable(self._settings, [name], "WRITE") if self._settings else {}
                if name in unusable:
                    raise unusable[name] from None
                raise
            except KafkaError as error:
                if not (error.retriable or isinstance(error, OF_ONE_RECORD)):
                    self._abandon(client)
                raise

    def close(self) -> None:
        """Flush and disconnect. Senders of events that the broker did not acknowledge already got Unavailable."""
        with suppress(KafkaTimeoutError):
            if self._client is not None:
                self._client.close(timeout=5)

    def _connected(self) -> Any:
        with self._lock:
            if self._client is None and self._reopen is not None:
                self._client = self._reopen()
            return self._client

    def _abandon(self, client: Any) -> None:
        """Have the next send open another client. After a fatal error, such as a right missing at the start, this one sends nothing."""
        with self._lock:
            if self._reopen is None or self._client is not client:
                return
            self._client = None
        log.warning("producer is replaced after a fatal error")
        with suppress(KafkaError):
            client.close(timeout=0)
