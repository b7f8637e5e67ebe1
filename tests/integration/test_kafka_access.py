"""Kafka's own authorization is the boundary: what a publisher, a service or a stranger may not do is refused, and nothing changes."""

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import kafka
import pytest
from kafka.admin import (
    ACL,
    ACLFilter,
    ACLOperation,
    ACLPermissionType,
    ACLResourcePatternType,
    KafkaAdminClient,
    ResourcePattern,
    ResourcePatternFilter,
    ResourceType,
    ScramMechanism,
    UserScramCredentialUpsertion,
)
from kafka.errors import KafkaError, for_code
from kafka.structs import OffsetAndMetadata
from pydantic import SecretStr

from tailor.events.access import PUBLISHER, PUBLISHERS, KafkaNames, rules
from tailor.events.topics import load_topics
from tailor.local.secrets import KAFKA_USERS
from tailor.local.store_access import kafka_settings
from tailor.settings import KafkaSettings
from tests.conftest import Stores
from tests.real.kinds import StoreKind

pytestmark = pytest.mark.integration

TOPICS = load_topics()
RULES = rules(TOPICS.values(), KafkaNames())
WRITERS = {name: {rule.user for rule in RULES if (rule.operation, rule.resource) == ("WRITE", name)} for name in TOPICS}
READERS = {name: {rule.user for rule in RULES if (rule.operation, rule.resource) == ("READ", name)} for name in TOPICS}
EVERY_RULE = ACLFilter(
    principal=None,
    host=None,
    operation=ACLOperation.ANY,
    permission_type=ACLPermissionType.ANY,
    resource_pattern=ResourcePatternFilter(ResourceType.ANY, None, ACLResourcePatternType.ANY),
)
INTERNAL = sorted(name for name, topic in TOPICS.items() if not topic.raw_zone)
RAW = sorted(name for name, topic in TOPICS.items() if topic.raw_zone)


@pytest.fixture(scope="module", autouse=True)
def guarded(stores: Stores, store_kind: StoreKind) -> None:
    """The embedded broker asks nobody for credentials: it is for one user's machine."""
    if store_kind.name == "embedded":
        pytest.skip("the embedded broker has no authorization; `make test-real` runs these")


@pytest.fixture(scope="module")
def admin(stores: Stores, guarded: None) -> Iterator[Any]:
    with closing(KafkaAdminClient(**stores.kafka_admin.kafka_arguments())) as client:
        yield client


@pytest.fixture
def nothing_changes(stores: Stores, admin: Any) -> Iterator[None]:
    """The attempt left no record, offset or rule behind."""
    before = _state(stores, admin)
    yield
    assert _state(stores, admin) == before


def _state(stores: Stores, admin: Any) -> Any:
    with closing(kafka.KafkaConsumer(**stores.kafka_admin.kafka_arguments())) as client:
        partitions = [
            kafka.TopicPartition(name, number)
            for name in sorted(TOPICS)
            for number in sorted(client.partitions_for_topic(name) or ())
        ]
        ends = client.end_offsets(partitions)
    names = [name for name in sorted(admin.list_topics()) if not name.startswith("__")]
    listed, _ = admin.describe_acls(EVERY_RULE)
    return ends, names, _committed(stores, "ingestion"), {repr(rule) for rule in listed}


def _committed(stores: Stores, group: str) -> Any:
    partition = kafka.TopicPartition("document.submitted.v1", 0)
    settings = stores.kafka_admin
    with closing(kafka.KafkaConsumer(group_id=group, enable_auto_commit=False, **settings.kafka_arguments())) as client:
        return client.committed(partition)


@contextmanager
def refused() -> Iterator[None]:
    """The broker says that the user has no right to it."""
    with pytest.raises(KafkaError) as caught:
        yield
    assert "AuthorizationFailed" in repr(caught.value)


def _user(stores: Stores, user: str) -> KafkaSettings:
    return kafka_settings(stores.plan.stores.kafka(user))


def _write(settings: KafkaSettings, topic: str) -> None:
    producer = kafka.KafkaProducer(max_block_ms=5000, **settings.kafka_arguments())
    try:
        producer.send(topic, key=b"forged", value=b"forged").get(10)
    finally:
        producer.close(timeout=1)


def _read(settings: KafkaSettings, topic: str) -> int:
    """The number of records that the user could read. Raises KafkaError if the broker refuses."""
    arguments = settings.kafka_arguments() | {"bootstrap_timeout_ms": 3000}
    with closing(KafkaAdminClient(**arguments)) as client:
        (described,) = client.describe_topics([topic])
        if described["error_code"]:
            raise for_code(described["error_code"])
    with closing(kafka.KafkaConsumer(enable_auto_commit=False, **arguments)) as client:
        partitions = [kafka.TopicPartition(topic, number) for number in range(len(described["partitions"]))]
        client.assign(partitions)
        client.seek_to_beginning(*partitions)
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            if records := client.poll(timeout_ms=200):
                return sum(map(len, records.values()))
    return 0


@pytest.mark.parametrize("topic", INTERNAL)
def test_a_publisher_cannot_write_what_only_services_state(stores: Stores, topic: str, nothing_changes: None) -> None:
    with refused():
        _write(stores.publisher, topic)


@pytest.mark.parametrize("user", PUBLISHERS)
def test_a_publisher_of_one_kind_writes_no_other_kind(stores: Stores, user: str, nothing_changes: None) -> None:
    for topic in RAW:
        if WRITERS[topic] != {user}:
            with refused():
                _write(_user(stores, user), topic)


@pytest.mark.parametrize("user", sorted({*KAFKA_USERS} - {"ingestion"}))
@pytest.mark.parametrize("topic", RAW)
def test_nobody_but_ingestion_reads_raw_documents(stores: Stores, user: str, topic: str) -> None:
    (publisher,) = WRITERS[topic]
    _write(_user(stores, publisher), topic)
    with refused():
        _read(_user(stores, user), topic)


def test_ingestion_reads_raw_documents(stores: Stores) -> None:
    _write(stores.publisher, "document.submitted.v1")
    assert _read(_user(stores, "ingestion"), "document.submitted.v1") > 0


def test_a_publisher_can_neither_join_nor_move_ingestions_group(stores: Stores, nothing_changes: None) -> None:
    settings = stores.publisher
    partition = kafka.TopicPartition("document.submitted.v1", 0)
    client = kafka.KafkaConsumer(
        group_id="ingestion", group_instance_id="ingestion-0", enable_auto_commit=False, **settings.kafka_arguments()
    )
    with closing(client):
        client.assign([partition])
        with refused():
            client.commit({partition: OffsetAndMetadata(10, "", -1)})
    member = kafka.KafkaConsumer(group_id="ingestion", enable_auto_commit=False, **settings.kafka_arguments())
    with closing(member):
        member.subscribe(["document.submitted.v1"])
        with refused():
            for _ in range(20):
                member.poll(timeout_ms=500)


def _create_topic(admin: Any, stores: Stores) -> None:
    admin.create_topics({"specialist.changed.v2": {"num_partitions": 1, "replication_factor": 1}})


def _allow_oneself(admin: Any, stores: Stores) -> None:
    principal = f"User:{stores.publisher.kafka_sasl_username}"
    pattern = ResourcePattern(ResourceType.TOPIC, "document.submitted.v1")
    acl = ACL(principal, "*", ACLOperation.READ, ACLPermissionType.ALLOW, pattern)
    failed = admin.create_acls([acl])["failed"]
    if failed:
        raise failed[0]


def _take_over(admin: Any, stores: Stores) -> None:
    user = str(_user(stores, "ingestion").kafka_sasl_username)
    upsertion = UserScramCredentialUpsertion(user, ScramMechanism.SCRAM_SHA_512, "known")
    error = admin.alter_user_scram_credentials([upsertion])[user]
    if error:
        raise KafkaError(error)


def _delete(admin: Any, stores: Stores) -> None:
    admin.delete_topics(["document.submitted.v1"])


@pytest.mark.parametrize("attempt", [_create_topic, _allow_oneself, _take_over, _delete])
@pytest.mark.parametrize("user", [PUBLISHER, "registry", "operator"])
def test_nobody_but_the_administrator_administers(
    stores: Stores, user: str, attempt: Callable[[Any, Stores], None], nothing_changes: None
) -> None:
    with closing(KafkaAdminClient(**_user(stores, user).kafka_arguments())) as client, pytest.raises(KafkaError):
        attempt(client, stores)
    assert _read(_user(stores, "ingestion"), "document.erased.v1") >= 0


@pytest.mark.parametrize("listener", ["services", "publishers"])
@pytest.mark.parametrize("credentials", ["none", "wrong password", "unknown user", "the administrator's name"])
def test_a_stranger_gets_no_connection(stores: Stores, listener: str, credentials: str, nothing_changes: None) -> None:
    settings = stores.publisher if listener == "publishers" else _user(stores, "ingestion")
    changes: dict[str, dict[str, Any]] = {
        "none": {"kafka_security_protocol": "PLAINTEXT"},
        "wrong password": {"kafka_sasl_password": SecretStr(uuid.uuid4().hex)},
        "unknown user": {"kafka_sasl_username": "nobody"},
        "the administrator's name": {"kafka_sasl_username": "admin"},
    }
    with pytest.raises(KafkaError):
        _read(settings.model_copy(update=changes[credentials]), "document.submitted.v1")


@pytest.mark.parametrize("user", sorted({*KAFKA_USERS} - {*PUBLISHERS}))
def test_a_service_reaches_only_the_topics_that_the_list_gives_it(
    stores: Stores, user: str, nothing_changes: None
) -> None:
    settings = _user(stores, user)
    forbidden = [name for name in TOPICS if user not in READERS[name] | WRITERS[name]]
    with closing(KafkaAdminClient(**settings.kafka_arguments())) as client:
        assert set(client.list_topics()) == set(TOPICS) - set(forbidden)
    for name in TOPICS:
        if user in READERS[name] and user not in WRITERS[name]:
            with refused():
                _write(settings, name)
        if user in WRITERS[name] and user not in READERS[name]:
            with refused():
                _read(settings, name)
