"""Nothing stops the flow of events, and nothing goes silently: on the embedded broker as far as it goes, and on Apache Kafka."""

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from typing import Any

import kafka
import pytest
from kafka.admin import (
    ACL,
    ACLOperation,
    ACLPermissionType,
    KafkaAdminClient,
    ResourcePattern,
    ResourceType,
    ScramMechanism,
    UserScramCredentialUpsertion,
)
from kafka.structs import OffsetAndMetadata
from pydantic import SecretStr

from tailor.api.events.v1 import documents_pb2, models_pb2
from tailor.errors import FailedPrecondition, InvalidArgument, Reason, Unavailable
from tailor.events.consumer import Consumer
from tailor.events.envelope import Event
from tailor.events.expired import reject_gap
from tailor.events.faults import Faults
from tailor.events.lag import LagMonitor
from tailor.events.memory import MemoryProducer
from tailor.events.producer import KafkaProducer
from tailor.events.raw_topics import RawTopics
from tailor.events.table import read_event
from tailor.events.topics import load_topics
from tailor.settings import ServiceSettings
from tests.conftest import Stores
from tests.real.kinds import StoreKind
from tests.waiting import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.slow]

EVENTS = 6
RETURN_SECONDS = 10.0


@pytest.fixture(scope="module")
def settings(stores: Stores) -> ServiceSettings:
    # The administrator, because these topics and groups are the tests' own.
    return stores.kafka_admin.model_copy(update={"kafka_group_instance_id": ""})


@pytest.fixture(scope="module")
def admin(settings: ServiceSettings) -> Iterator[Any]:
    with closing(KafkaAdminClient(**settings.kafka_arguments())) as client:
        yield client


@pytest.fixture
def topic(admin: Any) -> str:
    return _create(admin)


@pytest.fixture
def real(store_kind: StoreKind) -> None:
    """The embedded broker asks nobody for credentials, and creates a topic as soon as anybody names it."""
    if store_kind.name == "embedded":
        pytest.skip(
            "the embedded broker has no users and no rights, and creates every topic; `make test-real` runs these"
        )


def _name() -> str:
    return f"test.{uuid.uuid4().hex}.v1"


def _create(admin: Any, name: str = "") -> str:
    name = name or _name()
    admin.create_topics({name: {"num_partitions": 1, "replication_factor": 1}})
    return name


def _publish(settings: ServiceSettings, topic: str, count: int = EVENTS) -> None:
    with closing(KafkaProducer.from_settings(settings, "test")) as producer:
        for number in range(count):
            producer.send(topic, "k", models_pb2.RunFailed(run_id=f"run_{number}"), f"evt_{number}")


@contextmanager
def running(work: Callable[[threading.Event], None]) -> Iterator[None]:
    """Run `work(stop)` in a thread. Raises what it raised."""
    stop, failures = threading.Event(), list[BaseException]()

    def guarded() -> None:
        try:
            work(stop)
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=guarded, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(60)
    assert failures == []


def _reasons(faults: Faults) -> dict[str, str]:
    return {fault.part: fault.reason for fault in faults.all()}


def test_a_missing_topic_is_named_and_holds_up_no_other(
    real: None, settings: ServiceSettings, admin: Any, topic: str
) -> None:
    seen, faults, late = list[Event](), Faults(), _name()
    topics = {topic: seen.append, late: seen.append}
    consumer = Consumer(settings, service=_name(), topics=topics, producer=MemoryProducer(), faults=faults)
    _publish(settings, topic, 1)
    with running(consumer.run):
        wait_until(lambda: seen)
        wait_until(lambda: _reasons(faults) == {f"topic {late}": "KAFKA_TOPIC_MISSING"})
        _create(admin, late)
        _publish(settings, late, 1)
        wait_until(lambda: len(seen) == 2)
        wait_until(lambda: not faults.all())


def test_publishing_to_a_missing_topic_is_refused_with_its_name(real: None, settings: ServiceSettings) -> None:
    name = _name()
    with (
        closing(KafkaProducer.from_settings(settings, "test")) as producer,
        pytest.raises(Unavailable, match=name) as caught,
    ):
        producer.send(name, "k", models_pb2.RunFailed(), "evt_1")
    assert caught.value.reason == Reason.KAFKA_TOPIC_MISSING


def test_a_record_that_is_too_large_is_refused_and_not_retried(settings: ServiceSettings, topic: str) -> None:
    message = models_pb2.RunFailed(message="x" * 2_000_000)
    with (
        closing(KafkaProducer.from_settings(settings, "test")) as producer,
        pytest.raises(InvalidArgument, match=topic) as caught,
    ):
        producer.send(topic, "k", message, "evt_1")
    assert caught.value.reason == Reason.EVENT_TOO_LARGE


def test_a_broker_that_is_away_is_a_fault_until_it_answers(settings: ServiceSettings, topic: str) -> None:
    faults = Faults()
    away = settings.model_copy(update={"kafka_bootstrap_servers": "127.0.0.1:1"})
    watch = LagMonitor(away, _name(), faults)
    watch.add_shared([topic])
    with running(watch.run):
        wait_until(lambda: _reasons(faults) == {"kafka": "KAFKA_UNAVAILABLE"})
    watch = LagMonitor(settings, _name(), faults)
    watch.add_shared([topic])
    with running(watch.run):
        wait_until(lambda: not faults.all())


def test_every_submitted_event_is_handled_or_stated_as_expired(
    settings: ServiceSettings, admin: Any, topic: str
) -> None:
    group, handled, producer = _name(), list[Event](), MemoryProducer()
    partition = kafka.TopicPartition(topic, 0)
    _publish(settings, topic)
    with closing(kafka.KafkaConsumer(group_id=group, enable_auto_commit=False, **settings.kafka_arguments())) as client:
        client.assign([partition])
        client.commit({partition: OffsetAndMetadata(1, "", -1)})
    # Retention would do the same while the consumer is away.
    admin.delete_records({partition: 4})
    state = reject_gap(producer, "ingestion", documents_pb2.STAGE_INGESTION, [topic])
    for offsets in ([4, 5], [4, 5, 6]):
        consumer = Consumer(
            settings, service=group, topics={topic: handled.append}, producer=producer, publish_gap=state
        )
        with running(consumer.run):
            wait_until(lambda offsets=offsets: [event.offset for event in handled] == offsets)  # type: ignore[misc]
        _publish(settings, topic, 1)
    (rejected,) = producer.messages("document.rejected.v1")
    assert isinstance(rejected, documents_pb2.DocumentRejected)
    assert (rejected.expired.first_offset, rejected.expired.count) == (1, 3)
    assert 1 + rejected.expired.count + len(handled) == EVENTS + 1


def test_the_watch_measures_how_far_a_group_is_behind(settings: ServiceSettings, topic: str) -> None:
    _publish(settings, topic)
    day = replace(next(iter(load_topics().values())), name=topic, retention_hours=24, unread_retention_hours=None)
    now = time.time() + 18 * 3600
    watch = LagMonitor(settings, _name(), Faults(), now=lambda: now, topics={topic: day})
    watch.add_shared([topic])
    with running(watch.run):
        wait_until(watch.backlogs)
    (backlog,) = watch.backlogs()
    assert backlog.events == EVENTS
    assert 0.7 < backlog.retention_used < 0.8
    assert watch.retention_used() == backlog.retention_used


def test_what_was_handled_is_deleted_and_what_was_not_is_kept(settings: ServiceSettings, topic: str) -> None:
    group, partition = _name(), kafka.TopicPartition(topic, 0)
    raw = replace(next(iter(load_topics().values())), name=topic, retention_hours=0, unread_retention_hours=168)
    _publish(settings, topic)
    with closing(kafka.KafkaConsumer(group_id=group, enable_auto_commit=False, **settings.kafka_arguments())) as client:
        client.assign([partition])
        client.commit({partition: OffsetAndMetadata(4, "", -1)})
        RawTopics(settings, group, [raw], Faults(), now=lambda: time.time() + 60).trim_once()
        assert client.beginning_offsets([partition])[partition] == 4
        assert client.end_offsets([partition])[partition] == EVENTS


def test_one_event_is_read_again_until_it_expires(settings: ServiceSettings, admin: Any, topic: str) -> None:
    _publish(settings, topic)
    assert read_event(settings, topic, 0, 3).offset == 3
    admin.delete_records({kafka.TopicPartition(topic, 0): 4})
    for offset in (3, 99):
        with pytest.raises(FailedPrecondition) as caught:
            read_event(settings, topic, 0, offset)
        assert caught.value.reason == Reason.EVENT_EXPIRED


class Users:
    """Users of the test's own at the broker, and their rights."""

    def __init__(self, settings: ServiceSettings, admin: Any) -> None:
        self._settings, self._admin = settings, admin

    def create(self) -> ServiceSettings:
        """The settings of a new user without any right."""
        name, password = f"test-{uuid.uuid4().hex}", uuid.uuid4().hex
        upsertion = UserScramCredentialUpsertion(name, ScramMechanism.SCRAM_SHA_512, password)
        assert not self._admin.alter_user_scram_credentials([upsertion])[name]
        changes = {
            "kafka_sasl_mechanism": "SCRAM-SHA-512",
            "kafka_sasl_username": name,
            "kafka_sasl_password": SecretStr(password),
        }
        return self._settings.model_copy(update=changes)

    def allow(self, user: ServiceSettings, operation: str, kind: str, resource: str) -> None:
        """Give a user a right."""
        pattern = ResourcePattern(ResourceType[kind], resource)
        principal = f"User:{user.kafka_sasl_username}"
        acl = ACL(principal, "*", ACLOperation[operation], ACLPermissionType.ALLOW, pattern)
        assert not self._admin.create_acls([acl])["failed"]


@pytest.fixture
def users(real: None, settings: ServiceSettings, admin: Any) -> Users:
    return Users(settings, admin)


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-512", "PLAIN"])
def test_a_wrong_password_is_told_from_a_lost_broker(users: Users, mechanism: str) -> None:
    changes = {"kafka_sasl_password": SecretStr("wrong"), "kafka_sasl_mechanism": mechanism}
    user = users.create().model_copy(update=changes)
    with pytest.raises(Unavailable, match=str(user.kafka_sasl_username)) as caught:
        KafkaProducer.from_settings(user, "test")
    assert caught.value.reason == Reason.KAFKA_LOGIN_REFUSED


def test_a_missing_right_to_write_is_named_and_works_once_it_is_given(users: Users, topic: str) -> None:
    user = users.create()
    with closing(KafkaProducer.from_settings(user, "test")) as producer:
        with pytest.raises(Unavailable, match=f"WRITE on topic {topic}") as caught:
            producer.send(topic, "k", models_pb2.RunFailed(), "evt_1")
        assert caught.value.reason == Reason.KAFKA_RIGHT_MISSING
        users.allow(user, "WRITE", "TOPIC", topic)

        def is_sent() -> bool:
            try:
                producer.send(topic, "k", models_pb2.RunFailed(), "evt_1")
            except Unavailable:
                return False
            return True

        wait_until(is_sent, RETURN_SECONDS)


def test_missing_rights_to_read_are_named_and_events_flow_within_seconds_of_their_return(
    users: Users, settings: ServiceSettings, admin: Any, topic: str
) -> None:
    user, group, seen, faults, hidden = users.create(), _name(), list[Event](), Faults(), _create(admin)
    for name in (topic, hidden):
        _publish(settings, name, 1)
    topics = {topic: seen.append, hidden: seen.append}
    consumer = Consumer(user, service=group, topics=topics, producer=MemoryProducer(), faults=faults)
    with ExitStack() as stack:
        users.allow(user, "READ", "TOPIC", topic)
        stack.enter_context(running(consumer.run))
        wait_until(lambda: _reasons(faults).get("consumer") == "KAFKA_RIGHT_MISSING")
        (fault,) = (fault for fault in faults.all() if fault.part == "consumer")
        assert f"READ on group {group}" in fault.message
        users.allow(user, "READ", "GROUP", group)
        wait_until(lambda: len(seen) == 1, RETURN_SECONDS)
        wait_until(lambda: _reasons(faults) == {f"topic {hidden}": "KAFKA_RIGHT_MISSING"})
        users.allow(user, "READ", "TOPIC", hidden)
        wait_until(lambda: len(seen) == 2, RETURN_SECONDS)
        wait_until(lambda: not faults.all())
