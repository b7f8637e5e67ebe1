"""Producing events."""

import threading
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Protocol

import kafka
from google.protobuf.message import Message
from kafka.errors import KafkaError, KafkaTimeoutError

from tailor.errors import Reason, Unavailable
from tailor.events.envelope import headers_for
from tailor.events.watch import BrokerWatch
from tailor.logging import get_logger
from tailor.settings import KafkaSettings

log = get_logger(__name__)

ACK_SECONDS = 30
REMEMBERED = 20_000
RESEND_ATTEMPTS = 10
RESEND_PAUSE_SECONDS = 0.2


class Producer(Protocol):
    """States facts."""

    def send(self, topic: str, key: str, message: Message, event_id: str) -> None:
        """Send one event and wait until the broker has it; Unavailable if it does not answer. The same id again is the same fact."""
        ...


@dataclass(frozen=True)
class _Sent:
    moment: float
    topic: str
    key: bytes
    value: bytes
    headers: list[tuple[str, bytes]]


class KafkaProducer:
    """Sends to Kafka, acknowledged by all replicas; idempotent but where the broker may forget. Thread-safe."""

    def __init__(self, client: "kafka.KafkaProducer", source: str, settings: KafkaSettings) -> None:
        self._client = client
        self._source = source
        self._resend_seconds = settings.kafka_resend_seconds
        self._remembered: deque[_Sent] = deque(maxlen=REMEMBERED if self._resend_seconds else 0)
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._watch = BrokerWatch(settings.kafka_bootstrap_servers.split(",")[0], self._resend)
        if self._resend_seconds:
            self._watch.start()

    @classmethod
    def from_settings(cls, settings: KafkaSettings, source: str) -> "KafkaProducer":
        """Connect; Unavailable while no broker answers."""
        try:
            client = kafka.KafkaProducer(
                acks="all",
                # A broker that forgets its last moment forgets how far a producer came, too, and would refuse what it numbers on.
                enable_idempotence=not settings.kafka_resend_seconds,
                max_in_flight_requests_per_connection=1 if settings.kafka_resend_seconds else 5,
                # Every send waits for the broker's word, so that waiting for more to send with it would only delay it.
                linger_ms=0,
                max_block_ms=10_000,
                client_id=source,
                **settings.kafka_arguments(),
            )
        except KafkaError as error:
            raise Unavailable(
                Reason.KAFKA_UNAVAILABLE, f"The broker does not answer ({type(error).__name__})."
            ) from None
        return cls(client, source, settings)

    def send(self, topic: str, key: str, message: Message, event_id: str) -> None:
        """Send one event and wait until the broker has it."""
        attributes = headers_for(topic, message, self._source, event_id)
        headers = [(name, value.encode()) for name, value in attributes.items()]
        value = message.SerializeToString(deterministic=True)
        self._send(_Sent(time.monotonic(), topic, key.encode(), value, headers))

    def close(self) -> None:
        """Flush and disconnect."""
        self._closed.set()
        self._watch.stop()
        # Whoever sent what the broker still has not taken was told so.
        with suppress(KafkaTimeoutError):
            self._client.close(timeout=5)

    def _send(self, record: _Sent) -> None:
        try:
            future = self._client.send(record.topic, key=record.key, value=record.value, headers=record.headers)
            future.get(ACK_SECONDS)
        except KafkaError as error:
            raise Unavailable(
                Reason.KAFKA_UNAVAILABLE, f"The broker did not take the event ({type(error).__name__})."
            ) from None
        with self._lock:
            self._remembered.append(record)

    def _resend(self) -> None:
        """State again what was sent shortly before the loss."""
        with self._lock:
            since = self._watch.lost_at - self._resend_seconds
            again = [record for record in self._remembered if record.moment >= since]
        log.warning("broker returned", resent=len(again))
        for record in again:
            # As if it was sent now: the broker may be lost once more.
            self._send_again(replace(record, moment=time.monotonic()))

    def _send_again(self, record: _Sent) -> None:
        """Send until the broker has it, which may be lost again meanwhile."""
        for _ in range(RESEND_ATTEMPTS):
            try:
                self._send(record)
                return
            except Unavailable:
                if self._closed.wait(RESEND_PAUSE_SECONDS):
                    return
        log.error("event not sent again", topic=record.topic)
