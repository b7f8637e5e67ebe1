"""Kafka clients: opening them, naming their failures, pausing an idle one.

`kafka_client_module` names the module whose `KafkaProducer` and `KafkaConsumer` are used, so that a broker with defects can bring
its remedies without a word about them here.
"""

import importlib
import logging
import threading
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import kafka
from kafka.errors import (
    AuthorizationError,
    CommitFailedError,
    GroupAuthorizationFailedError,
    IllegalGenerationError,
    IllegalSaslStateError,
    KafkaConnectionError,
    KafkaError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    RebalanceInProgressError,
    RecordListTooLargeError,
    SaslAuthenticationFailedError,
    TopicAuthorizationFailedError,
    UnknownMemberIdError,
    UnknownTopicOrPartitionError,
    UnsupportedSaslMechanismError,
)

from tailor.errors import InvalidArgument, Reason, TailorError, Unavailable
from tailor.events.envelope import Event
from tailor.events.faults import Faults
from tailor.logging import get_logger
from tailor.settings import KafkaSettings

log = get_logger(__name__)

# A broker may answer an empty fetch at once instead of holding it, and kafka-python asks again for as long as a poll lasts. Polls are
# therefore short, and IdlePause waits between them, so that an idle service uses little processor time.
POLL_MS = 2
IDLE_SECONDS = 0.3
MAX_IDLE_SECONDS = 1.0
RECONNECT_SECONDS = 1.0
CLOSED, MIN_CLOSED = "socket disconnected", 3
REFUSED_LOGINS = (SaslAuthenticationFailedError, UnsupportedSaslMechanismError, IllegalSaslStateError)


class BrokerLost(Unavailable):
    """The broker does not answer or refuses this service. It heals without a restart, so the service waits."""


class GroupChanged(BrokerLost):
    """The group is rebalancing, and this member has to join again."""


class RightMissing(BrokerLost):
    """The user lacks a right on these topics. `topics` is empty if the right concerns something else."""

    def __init__(self, message: str, topics: Collection[str] = ()) -> None:
        super().__init__(Reason.KAFKA_RIGHT_MISSING, message)
        self.topics = frozenset(topics)


def open_consumer(settings: KafkaSettings, **options: Any) -> Any:
    """A connected `kafka.KafkaConsumer` that never commits by itself and creates no topic. Raises BrokerLost."""
    with broker_errors(settings), _login_failures(settings):
        module: Any = importlib.import_module(settings.kafka_client_module)
        fixed = {"enable_auto_commit": False, "allow_auto_create_topics": False}
        return module.KafkaConsumer(**fixed, **options, **settings.kafka_arguments())


def open_producer(settings: KafkaSettings, **options: Any) -> Any:
    """A connected `kafka.KafkaProducer` that creates no topic. Raises BrokerLost."""
    with broker_errors(settings), _login_failures(settings):
        module: Any = importlib.import_module(settings.kafka_client_module)
        return module.KafkaProducer(allow_auto_create_topics=False, **options, **settings.kafka_arguments())


class _LoginFailures(logging.Handler):
    """Collects the refused logins that kafka-python logs and tries again.

    A broker with PLAIN says nothing: it accepts the connection and closes it, each time, while the login is under way.
    """

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.errors: list[KafkaError] = []
        self.closed = 0

    def emit(self, record: logging.LogRecord) -> None:
        values = record.args if isinstance(record.args, tuple) else ()
        self.errors += [value for value in values if isinstance(value, REFUSED_LOGINS)]
        self.closed += any(isinstance(value, KafkaConnectionError) and CLOSED in str(value) for value in values)

    def find(self, settings: KafkaSettings) -> KafkaError | None:
        """The refusal of a login, if there was one."""
        if self.errors:
            return self.errors[-1]
        has_login = settings.kafka_security_protocol.startswith("SASL")
        return SaslAuthenticationFailedError() if has_login and self.closed >= MIN_CLOSED else None


@contextmanager
def _login_failures(settings: KafkaSettings) -> Iterator[None]:
    """Raise a refused login instead of the timeout that kafka-python makes of it while it connects."""
    handler, logger = _LoginFailures(), logging.getLogger("kafka")
    logger.addHandler(handler)
    try:
        yield
    except KafkaTimeoutError:
        if refusal := handler.find(settings):
            raise refusal from None
        raise
    finally:
        logger.removeHandler(handler)


def find_unusable(settings: KafkaSettings, topics: Collection[str], right: str) -> dict[str, BrokerLost]:
    """Why topics that the broker does not show to this user cannot be used: they are missing, or forbidden. Blocks; raises BrokerLost."""
    with broker_errors(settings), _login_failures(settings):
        admin = kafka.KafkaAdminClient(**settings.kafka_arguments())
        try:
            described = admin.describe_topics(sorted(topics))
        finally:
            admin.close()
    unusable: dict[str, BrokerLost] = {}
    for entry in described:
        if entry["error_code"] == TopicAuthorizationFailedError.errno:
            unusable[entry["name"]] = right_missing(settings.kafka_user, right, [entry["name"]])
        elif entry["error_code"]:
            unusable[entry["name"]] = topic_missing([entry["name"]])
    return unusable


@contextmanager
def broker_errors(
    settings: KafkaSettings | None = None, *, right: str = "DESCRIBE", topic: str = "", group: str = ""
) -> Iterator[None]:
    """Turn kafka-python's errors into TailorErrors that name the topic, and the right that is missing.

    Raises InvalidArgument (EVENT_TOO_LARGE) for a record that the broker will never take, GroupChanged during a rebalance, and BrokerLost
    for everything else. `right` is the operation that is tried on the topic.
    """
    try:
        yield
    except (CommitFailedError, IllegalGenerationError, RebalanceInProgressError, UnknownMemberIdError):
        raise GroupChanged(Reason.GROUP_CHANGED, "The consumer group is rebalancing.") from None
    except KafkaError as error:
        user = settings.kafka_user if settings else ""
        raise to_tailor_error(error, user=user, right=right, topic=topic, group=group) from None


def to_tailor_error(
    error: KafkaError, *, user: str = "", right: str = "DESCRIBE", topic: str = "", group: str = ""
) -> TailorError:
    """The error for an operator: one of five causes, each with its remedy."""
    name = type(error).__name__
    if isinstance(error, (MessageSizeTooLargeError, RecordListTooLargeError)):
        return too_large(topic)
    if isinstance(error, REFUSED_LOGINS):
        return BrokerLost(
            Reason.KAFKA_LOGIN_REFUSED,
            f"The Kafka broker refuses the login of {user or 'this user'} ({name}). Check TAILOR_KAFKA_SASL_USERNAME, "
            "TAILOR_KAFKA_SASL_PASSWORD and TAILOR_KAFKA_SASL_MECHANISM.",
        )
    if isinstance(error, AuthorizationError):
        return _right_missing(error, user, right, topic, group)
    if isinstance(error, UnknownTopicOrPartitionError):
        return topic_missing([topic])
    return BrokerLost(
        Reason.KAFKA_UNAVAILABLE, f"The Kafka broker does not answer ({name}). Check that it runs and its address."
    )


def too_large(topic: str) -> InvalidArgument:
    """The error for a record that the broker does not take."""
    return InvalidArgument(
        Reason.EVENT_TOO_LARGE,
        f"An event for {topic or 'a topic'} is larger than the Kafka broker accepts. It is set aside; shorten what it reports, or "
        "raise `max.message.bytes` of the topic.",
    )


def topic_missing(topics: Collection[str]) -> BrokerLost:
    """The error for topics that the broker does not have."""
    return BrokerLost(
        Reason.KAFKA_TOPIC_MISSING,
        f"The Kafka broker has no topic {', '.join(sorted(topics))}. Create it with `python -m deploy.init.topics`.",
    )


def right_missing(user: str, right: str, topics: Collection[str]) -> RightMissing:
    """The error for a right on topics that the user lacks."""
    return _lacks(user, f"{right} on topic {', '.join(sorted(topics)) or 'of this service'}", topics)


def _right_missing(error: AuthorizationError, user: str, right: str, topic: str, group: str) -> RightMissing:
    if isinstance(error, TopicAuthorizationFailedError):
        return right_missing(user, right, _topics_of(error) or ([topic] if topic else []))
    if isinstance(error, GroupAuthorizationFailedError):
        return _lacks(user, f"READ on group {group or 'of this service'}")
    return _lacks(user, f"of the cluster or of transactions ({type(error).__name__})")


def _lacks(user: str, what: str, topics: Collection[str] = ()) -> RightMissing:
    message = f"{user or 'This user'} lacks the Kafka right {what}. Grant it with `python -m deploy.init.topics`, or add the ACL by hand."
    return RightMissing(message, topics)


def _topics_of(error: TopicAuthorizationFailedError) -> list[str]:
    named = error.args[0] if error.args else ()
    return [name for name in named if isinstance(name, str)] if isinstance(named, (set, frozenset, list, tuple)) else []


@contextmanager
def wait_for_broker(stop: threading.Event, faults: Faults | None = None, part: str = "kafka") -> Iterator[None]:
    """Swallow BrokerLost and wait a moment, unless `stop` is set. For the body of a loop that then starts again.

    Reports the error as a fault of `part`; the body clears it once it works again.
    """
    try:
        yield
    except GroupChanged:
        stop.wait(RECONNECT_SECONDS)
    except BrokerLost as error:
        (faults or Faults()).report(part, error)
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
