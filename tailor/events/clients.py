"""Kafka clients: opening them, naming their failures, pausing an idle one.

`kafka_client_module` names the module whose `KafkaProducer` and `KafkaConsumer` are used, so that a broker with defects can bring
its remedies without a word about them here.
"""

import importlib
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from kafka.errors import (
    CommitFailedError,
    IllegalGenerationError,
    KafkaError,
    RebalanceInProgressError,
    UnknownMemberIdError,
)

from tailor.errors import Reason, Unavailable
from tailor.events.envelope import Event
from tailor.logging import get_logger
from tailor.settings import KafkaSettings

log = get_logger(__name__)

# A broker may answer an empty fetch at once instead of holding it, and kafka-python asks again for as long as a poll lasts. Polls are
# therefore short, and IdlePause waits between them, so that an idle service uses little processor time.
POLL_MS = 2
IDLE_SECONDS = 0.3
MAX_IDLE_SECONDS = 1.0
RECONNECT_SECONDS = 1.0


class BrokerLost(Unavailable):
    """The broker does not answer; nothing can be consumed until it does."""


class GroupChanged(BrokerLost):
    """The group is rebalancing, and this member has to join again."""


def open_consumer(settings: KafkaSettings, **options: Any) -> Any:
    """A connected `kafka.KafkaConsumer` that never commits by itself. Raises BrokerLost."""
    with broker_errors():
        module: Any = importlib.import_module(settings.kafka_client_module)
        return module.KafkaConsumer(enable_auto_commit=False, **options, **settings.kafka_arguments())


def open_producer(settings: KafkaSettings, **options: Any) -> Any:
    """A connected `kafka.KafkaProducer`. Raises BrokerLost."""
    with broker_errors():
        module: Any = importlib.import_module(settings.kafka_client_module)
        return module.KafkaProducer(**options, **settings.kafka_arguments())


@contextmanager
def broker_errors() -> Iterator[None]:
    """Turn kafka-python's errors into BrokerLost, or GroupChanged during a rebalance."""
    try:
        yield
    except (CommitFailedError, IllegalGenerationError, RebalanceInProgressError, UnknownMemberIdError):
        raise GroupChanged(Reason.GROUP_CHANGED, "The consumer group is rebalancing.") from None
    except KafkaError as error:
        raise BrokerLost(
            Reason.KAFKA_UNAVAILABLE, f"The Kafka broker does not answer ({type(error).__name__})."
        ) from None


@contextmanager
def wait_for_broker(stop: threading.Event) -> Iterator[None]:
    """Swallow BrokerLost and wait a moment, unless `stop` is set. For the body of a loop that then starts again."""
    try:
        yield
    except BrokerLost as error:
        log.warning("waiting", waiting_for="kafka", reason=error.reason)
        stop.wait(RECONNECT_SECONDS)


def to_event(record: Any, topic_prefix: str) -> Event:
    """Convert a kafka-python record. Bytes of headers and keys that are not UTF-8 are replaced."""
    return Event(
        topic=record.topic.removeprefix(topic_prefix),
        key=(record.key or b"").decode(errors="replace"),
        value=record.value,
        headers={name: (value or b"").decode(errors="replace") for name, value in record.headers},
        partition=record.partition,
        offset=record.offset,
        timestamp_ms=record.timestamp,
    )


class IdlePause:
    """Waits between polls, longer the longer nothing arrives."""

    def __init__(self) -> None:
        self._seconds = IDLE_SECONDS

    def after(self, batches: Mapping[Any, Any], stop: threading.Event) -> None:
        """Wait if the poll was empty. Returns at once when `stop` is set."""
        if batches:
            self._seconds = IDLE_SECONDS
            return
        stop.wait(self._seconds)
        self._seconds = min(MAX_IDLE_SECONDS, self._seconds * 1.2)
