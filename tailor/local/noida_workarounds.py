"""Kafka clients for the embedded broker, which forgets its last moment when it is killed.

Apache Kafka keeps what it acknowledged. The embedded broker (`noida-db`) writes to disk about once per second: a killed one has forgotten
the last events, committed offsets and producers' sequence numbers. These clients make up for that:

- `KafkaProducer` remembers what it sent and, when the broker is back, sends the last seconds again. Handlers are idempotent.
- `KafkaConsumer` fails once after a loss, and if it cannot join its group for JOIN_PATIENCE_SECONDS, so that its owner opens another one
  and continues from the committed offsets. Apache Kafka answers every join, if late: it waits for members that are at work.

The embedded stack names this module in `TAILOR_KAFKA_CLIENT_MODULE` (`tailor/events/clients.py`).
"""

import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import kafka
from kafka.errors import KafkaConnectionError, KafkaError
from kafka.structs import MemberState

from tailor.logging import get_logger

log = get_logger(__name__)

CONNECT_SECONDS = 0.5
JOIN_PATIENCE_SECONDS = 15.0
RESEND_SECONDS = 5.0
MAX_REMEMBERED = 20_000
RESEND_ATTEMPTS = 10
RESEND_PAUSE_SECONDS = 0.2
ACK_SECONDS = 30


class IdleConnection:
    """A connection that says nothing; the broker's death breaks it. Raises OSError if the broker does not accept it."""

    def __init__(self, bootstrap_servers: Sequence[str]) -> None:
        host, _, port = bootstrap_servers[0].rpartition(":")
        self._socket = socket.create_connection((host, int(port)), CONNECT_SECONDS)

    def is_broken(self, wait_seconds: float = 0.0) -> bool:
        """Wait up to `wait_seconds` for the connection to break."""
        self._socket.settimeout(wait_seconds)
        try:
            return not self._socket.recv(1)
        except (BlockingIOError, TimeoutError):
            return False
        except OSError:
            return True

    def close(self) -> None:
        self._socket.close()


class NoidaConsumer(kafka.KafkaConsumer):  # type: ignore[misc]
    """A kafka.KafkaConsumer whose `poll` and `commit` raise KafkaConnectionError once the broker was lost, even if it is back."""

    def __init__(self, *topics: str, **arguments: Any) -> None:
        self._joining_since: float | None = None
        try:
            self._connection = IdleConnection(arguments["bootstrap_servers"])
        except OSError:
            raise KafkaConnectionError("the broker does not accept connections") from None
        try:
            super().__init__(*topics, **arguments)
        except BaseException:
            self._connection.close()
            raise

    def poll(self, *arguments: Any, **options: Any) -> Any:
        self._check()
        records = super().poll(*arguments, **options)
        self._check_membership()
        return records

    def commit(self, *arguments: Any, **options: Any) -> Any:
        self._check()
        return super().commit(*arguments, **options)

    def close(self, *arguments: Any, **options: Any) -> None:
        self._connection.close()
        super().close(*arguments, **options)

    def _check(self) -> None:
        if self._connection.is_broken():
            raise KafkaConnectionError("the broker was lost and may have forgotten its last moment")

    def _check_membership(self) -> None:
        metadata = self.group_metadata()
        if metadata.group_id is None or metadata.state == MemberState.STABLE:
            self._joining_since = None
        elif self._joining_since is None:
            self._joining_since = time.monotonic()
        elif time.monotonic() - self._joining_since > JOIN_PATIENCE_SECONDS:
            raise KafkaConnectionError("the broker does not complete the join")


@dataclass(frozen=True)
class SentRecord:
    """A record that the broker acknowledged at `moment` (monotonic seconds)."""

    moment: float
    topic: str
    fields: dict[str, Any]


class NoidaProducer:
    """Sends through a kafka.KafkaProducer, and once more after the broker was lost. Thread-safe."""

    def __init__(self, connect: Callable[..., Any] = kafka.KafkaProducer, **arguments: Any) -> None:
        # The broker forgets sequence numbers too, and would refuse the next one of an idempotent producer.
        in_order = {"enable_idempotence": False, "max_in_flight_requests_per_connection": 1}
        self._client = connect(**arguments | in_order)
        self._bootstrap_servers: Sequence[str] = arguments["bootstrap_servers"]
        self._remembered: deque[SentRecord] = deque(maxlen=MAX_REMEMBERED)
        self._lock = threading.Lock()
        self._closed = threading.Event()
        threading.Thread(target=self._watch, name="broker-watch", daemon=True).start()

    def send(self, topic: str, **fields: Any) -> Any:
        """Send a record like kafka.KafkaProducer; returns its future."""
        future = self._client.send(topic, **fields)
        future.add_callback(lambda _: self._remember(topic, fields))
        return future

    def close(self, timeout: float) -> None:
        """Flush and disconnect. Raises KafkaTimeoutError if the broker did not take everything in `timeout` seconds."""
        self._closed.set()
        self._client.close(timeout=timeout)

    def _remember(self, topic: str, fields: dict[str, Any]) -> None:
        with self._lock:
            self._remembered.append(SentRecord(time.monotonic(), topic, fields))

    def _watch(self) -> None:
        lost_at: float | None = None
        while not self._closed.is_set():
            with suppress(OSError):
                connection = IdleConnection(self._bootstrap_servers)
                if lost_at is not None:
                    self._resend(lost_at - RESEND_SECONDS)
                while not self._closed.is_set() and not connection.is_broken(CONNECT_SECONDS):
                    pass
                lost_at = time.monotonic()
                connection.close()
            self._closed.wait(CONNECT_SECONDS)

    def _resend(self, since: float) -> None:
        with self._lock:
            records = [record for record in self._remembered if record.moment >= since]
        log.warning("broker returned", resent=len(records))
        for record in records:
            self._send_until_acknowledged(record)

    def _send_until_acknowledged(self, record: SentRecord) -> None:
        """Retry, because the broker may be lost again meanwhile."""
        for _ in range(RESEND_ATTEMPTS):
            try:
                self.send(record.topic, **record.fields).get(ACK_SECONDS)
                return
            except KafkaError:
                if self._closed.wait(RESEND_PAUSE_SECONDS):
                    return
        log.error("event not resent", topic=record.topic)


KafkaConsumer = NoidaConsumer
KafkaProducer = NoidaProducer
