"""The init program for topics, users and rules, with a fake broker."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from kafka.admin import ACL, ACLOperation, ACLPermissionType, ACLResourcePatternType, ResourcePattern, ResourceType

from deploy.init.topics import Settings, apply
from deploy.make_secrets import make
from tailor.errors import FailedPrecondition, Reason
from tailor.events.access import OPERATOR, PUBLISHERS, KafkaNames, apply_rules, check_names, rules, users
from tailor.events.provision import TopicPlan, apply_topics, grow_topics, topic_configs
from tailor.events.topics import load_topics

TOPICS = load_topics()
ONE = TopicPlan(1, 1)
NAMES = KafkaNames()


class FakeAdmin:
    """The administration of a broker in memory. `refused` are topics whose configuration it refuses."""

    def __init__(self) -> None:
        self.topics: dict[str, dict[str, Any]] = {}
        self.acls: set[Any] = set()
        self.passwords: dict[str, str] = {}
        self.refused: set[str] = set()
        self.offsets_minutes = "86400"

    def describe_topics(self) -> list[dict[str, Any]]:
        return [{"name": name, "partitions": [{}] * entry["partitions"]} for name, entry in self.topics.items()]

    def create_topics(self, new_topics: dict[str, dict[str, Any]]) -> None:
        for name, entry in new_topics.items():
            assert name not in self.topics, "the broker refuses an existing topic"
            self.topics[name] = {
                "partitions": entry["num_partitions"],
                "replicas": entry["replication_factor"],
                "configs": dict(entry["configs"]),
            }

    def alter_configs(self, config_resources: list[Any]) -> dict[str, dict[str, str]]:
        results = {}
        for resource in config_resources:
            results[resource.name] = "POLICY_VIOLATION" if resource.name in self.refused else "OK"
            if resource.name not in self.refused:
                self.topics[resource.name]["configs"] |= resource.configs
        return {"topic": results}

    def describe_cluster(self) -> dict[str, Any]:
        return {"brokers": [{"broker_id": 4}]}

    def describe_configs(self, config_resources: list[Any], config_filter: str) -> dict[str, dict[str, dict[str, Any]]]:
        assert config_filter == "all"
        (resource,) = config_resources
        return {"broker": {resource.name: {"offsets.retention.minutes": {"value": self.offsets_minutes}}}}

    def create_partitions(self, topic_partitions: dict[str, int]) -> None:
        for name, count in topic_partitions.items():
            self.topics[name]["partitions"] = count

    def describe_acls(self, acl_filter: Any) -> tuple[list[Any], None]:
        assert acl_filter.principal is None
        return list(self.acls), None

    def create_acls(self, acls: list[Any]) -> dict[str, list[Any]]:
        self.acls |= set(acls)
        return {"succeeded": acls, "failed": []}

    def delete_acls(self, acl_filters: list[Any]) -> None:
        self.acls -= set(acl_filters)

    def alter_user_scram_credentials(self, alterations: list[Any]) -> dict[str, str | None]:
        self.passwords |= {each.user: each.mechanism.name for each in alterations}
        return {each.user: None for each in alterations}


def acl(principal: str, topic: str, kind: str = "LITERAL") -> Any:
    """A rule that lets somebody read a topic, or all whose names begin like it."""
    pattern = ResourcePattern(ResourceType.TOPIC, topic, ACLResourcePatternType[kind])
    return ACL(principal, "*", ACLOperation.READ, ACLPermissionType.ALLOW, pattern)


def test_creates_every_topic_as_the_list_says() -> None:
    admin = FakeAdmin()
    apply_topics(admin, TOPICS.values(), TopicPlan())
    assert set(admin.topics) == set(TOPICS)
    for name, topic in TOPICS.items():
        created = admin.topics[name]
        assert (created["partitions"], created["replicas"]) == (topic.partitions, 3)
        assert created["configs"]["min.insync.replicas"] == "2"
        if topic.retention_hours is None:
            assert created["configs"]["cleanup.policy"] == "compact"
            assert "retention.ms" not in created["configs"]
            # A day after a change, no replica reads the old value any more.
            assert (
                created["configs"]["max.compaction.lag.ms"] == created["configs"]["segment.ms"] == str(24 * 3_600_000)
            )
        else:
            assert created["configs"]["retention.ms"] == str((topic.kept_hours or 0) * 3_600_000)
            assert created["configs"]["message.timestamp.type"] == "LogAppendTime"


def test_a_second_run_only_updates_the_configuration() -> None:
    admin = FakeAdmin()
    apply_topics(admin, TOPICS.values(), ONE)
    admin.topics["draft.created.v1"]["configs"] = {"retention.ms": "1", "compression.type": "zstd"}
    lines = apply_topics(admin, TOPICS.values(), ONE)
    assert all(line.startswith("configured") for line in lines)
    configs = admin.topics["draft.created.v1"]["configs"]
    assert configs["retention.ms"] == str(720 * 3_600_000)
    assert configs["compression.type"] == "zstd", "other settings of the operator stay"


def test_a_configuration_that_the_broker_refuses_is_an_error() -> None:
    admin = FakeAdmin()
    apply_topics(admin, TOPICS.values(), ONE)
    admin.refused = {"draft.created.v1"}
    with pytest.raises(FailedPrecondition, match=r"draft\.created\.v1: POLICY_VIOLATION") as caught:
        apply_topics(admin, TOPICS.values(), ONE)
    assert caught.value.reason is Reason.TOPIC_NOT_CONFIGURED


def test_partitions_grow_only_by_the_command_and_never_shrink() -> None:
    admin = FakeAdmin()
    apply_topics(admin, TOPICS.values(), ONE)
    larger = replace(ONE, partitions={"draft.created.v1": 12})
    with pytest.raises(FailedPrecondition, match=r"draft\.created\.v1 has 6 partitions, but 12 are set.*--grow"):
        apply_topics(admin, TOPICS.values(), larger)
    assert grow_topics(admin, TOPICS.values(), larger) == ["draft.created.v1: 6 partitions became 12"]
    assert grow_topics(admin, TOPICS.values(), larger) == []
    apply_topics(admin, TOPICS.values(), larger)
    with pytest.raises(FailedPrecondition, match=r"draft\.created\.v1 has 12 partitions, but 6 are set"):
        apply_topics(admin, TOPICS.values(), ONE)


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        (TopicPlan(1, 2), "TAILOR_KAFKA_MIN_INSYNC_REPLICAS"),
        (TopicPlan(partitions={"no.such.v1": 3}), r"no\.such\.v1"),
        (TopicPlan(partitions={"specialist.serving.v1": 3}), "compacted"),
        (TopicPlan(partitions={"draft.created.v1": 2}), "too few"),
    ],
)
def test_a_plan_that_would_lose_or_stop_events_is_refused(plan: TopicPlan, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        apply_topics(FakeAdmin(), TOPICS.values(), plan)


def test_raw_text_does_not_outlive_its_retention_in_an_open_segment() -> None:
    for topic in TOPICS.values():
        if topic.raw_zone:
            configs = topic_configs(topic, ONE)
            assert int(configs["segment.ms"]) * 4 <= int(configs["retention.ms"])


@pytest.mark.parametrize(
    ("user", "topic"),
    zip(
        PUBLISHERS,
        ("document.submitted.v1", "example.published.v1", "test.published.v1", "deliverable.published.v1"),
        strict=True,
    ),
)
def test_a_publisher_writes_the_topic_of_its_kind_and_nothing_else(user: str, topic: str) -> None:
    allowed = [(rule.operation, rule.resource) for rule in rules(TOPICS.values(), NAMES) if rule.user == user]
    assert allowed == [("WRITE", topic)]


def test_only_ingestion_may_read_the_raw_zone() -> None:
    raw = {topic.name for topic in TOPICS.values() if topic.raw_zone}
    readers = {rule.user for rule in rules(TOPICS.values(), NAMES) if rule.operation == "READ" and rule.resource in raw}
    assert readers == {"ingestion"}


def test_everybody_joins_their_own_group_and_the_operator_joins_none() -> None:
    groups = [(rule.user, rule.resource) for rule in rules(TOPICS.values(), NAMES) if rule.kind == "GROUP"]
    assert all(user == group for user, group in groups)
    assert OPERATOR not in dict(groups)
    assert len(groups) == 6 or len(groups) == 7


def test_a_prefix_stands_before_every_topic_and_group() -> None:
    prefixed = rules(TOPICS.values(), KafkaNames(topic_prefix="acme.", group_prefix="acme-"))
    assert all(rule.resource.startswith("acme." if rule.kind == "TOPIC" else "acme-") for rule in prefixed)


def test_rules_that_are_no_longer_listed_go_and_those_of_others_stay() -> None:
    admin = FakeAdmin()
    apply_rules(admin, TOPICS.values(), NAMES)
    listed = set(admin.acls)
    obsolete, foreign = acl("User:tailor-publisher", "document.submitted.v1"), acl("User:payroll", "salaries")
    similar = acl("User:tailor-x/y", "salaries")
    admin.acls |= {obsolete, foreign, similar}
    lines = apply_rules(admin, TOPICS.values(), NAMES)
    assert admin.acls == listed | {foreign, similar}
    assert len(lines) == 1 and "tailor-publisher" in lines[0]
    assert apply_rules(admin, TOPICS.values(), NAMES) == []


@pytest.mark.parametrize(
    ("resource", "pattern", "is_open"),
    [
        ("document.submitted.v1", "LITERAL", True),
        ("*", "LITERAL", True),
        ("document.", "PREFIXED", True),
        ("salaries", "LITERAL", False),
        ("document", "LITERAL", False),
        ("sal", "PREFIXED", False),
    ],
)
def test_a_rule_for_everybody_is_a_warning_where_it_opens_a_topic_of_ours(
    resource: str, pattern: str, is_open: bool
) -> None:
    admin = FakeAdmin()
    apply_rules(admin, TOPICS.values(), NAMES)
    rule = acl("User:*", resource, pattern)
    admin.acls.add(rule)
    lines = apply_rules(admin, TOPICS.values(), NAMES)
    assert bool(lines) is is_open and rule in admin.acls
    assert all(f"User:* may READ topic {resource}" in line for line in lines)


def test_principals_of_certificates_have_their_own_form() -> None:
    names = KafkaNames("User:CN=tailor-{name},O=Example", publishers=("erp", "hr"))
    assert names.principal_of("ingestion") == "User:CN=tailor-ingestion,O=Example"
    assert names.is_own("User:CN=tailor-erp,O=Example")
    assert not names.is_own("User:CN=tailor-erp,O=Elsewhere")
    assert {"erp", "hr"} < set(users(TOPICS.values(), names))


@pytest.mark.parametrize("principal", ["User:{name}", "User:tailor", "tailor-{name}"])
def test_a_form_that_could_be_anybodys_is_refused(principal: str) -> None:
    with pytest.raises(ValueError, match="TAILOR_KAFKA_PRINCIPAL"):
        check_names(KafkaNames(principal))


def test_the_program_creates_topics_users_and_rules(tmp_path: Path) -> None:
    admin, folder = FakeAdmin(), make(tmp_path, ["erp"])
    settings = Settings(
        kafka_replication_factor=1,
        kafka_min_insync_replicas=1,
        kafka_publishers=["publisher", "erp"],
        stores_file=folder / "stores.json",
    )
    first = list(apply(admin, settings))
    assert set(admin.topics) == set(TOPICS)
    assert "tailor-erp" in admin.passwords and "tailor-ingestion" in admin.passwords
    assert "allowed erp to WRITE topic document.submitted.v1" in first
    password = json.loads((folder / "stores.json").read_text(encoding="utf-8"))["erp"]["kafka_password"]
    assert not any(password in line for line in first)
    assert not any(line.startswith(("created", "allowed", "took")) for line in apply(admin, settings))


def test_a_broker_without_an_authorizer_gets_topics_only(tmp_path: Path) -> None:
    admin = FakeAdmin()
    list(apply(admin, Settings(kafka_access="none", stores_file=tmp_path / "missing")))
    assert admin.topics and not admin.acls and not admin.passwords


def test_reads_the_same_kafka_settings_as_a_service(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAILOR_KAFKA_BOOTSTRAP_SERVERS", "kafka:19092")
    monkeypatch.setenv("TAILOR_KAFKA_PARTITIONS", '{"draft.created.v1": 12}')
    settings = Settings()
    assert settings.kafka_arguments()["bootstrap_servers"] == ["kafka:19092"]
    assert (settings.plan().replication_factor, settings.plan().min_insync_replicas) == (3, 2)
    assert settings.plan().partitions == {"draft.created.v1": 12}


def test_a_broker_that_forgets_positions_before_events_expire_is_warned_of() -> None:
    admin = FakeAdmin()
    settings = Settings(kafka_replication_factor=1, kafka_min_insync_replicas=1, kafka_access="none")
    assert not any(line.startswith("warning") for line in apply(admin, settings))
    # Kafka's default.
    admin.offsets_minutes = "10080"
    (warning,) = [line for line in apply(admin, settings) if line.startswith("warning")]
    assert "after 10080 minutes" in warning and "above 43200" in warning
