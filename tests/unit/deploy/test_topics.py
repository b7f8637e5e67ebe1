"""The init program for topics, with a fake broker."""

from typing import Any

import pytest

from deploy.init.topics import Settings, apply, topic_configs
from tailor.events.topics import load_topics

TOPICS = load_topics()


class FakeAdmin:
    """The administration of a broker in memory."""

    def __init__(self) -> None:
        self.topics: dict[str, dict[str, Any]] = {}

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

    def alter_configs(self, config_resources: list[Any]) -> None:
        for resource in config_resources:
            self.topics[resource.name]["configs"] |= resource.configs


def test_creates_every_topic_as_the_list_says() -> None:
    admin = FakeAdmin()
    apply(admin, TOPICS.values(), 3)
    assert set(admin.topics) == set(TOPICS)
    for name, topic in TOPICS.items():
        created = admin.topics[name]
        assert (created["partitions"], created["replicas"]) == (topic.partitions, 3)
        assert created["configs"]["min.insync.replicas"] == "2"
        if topic.retention_hours is None:
            assert created["configs"]["cleanup.policy"] == "compact"
            assert "retention.ms" not in created["configs"]
        else:
            assert created["configs"]["retention.ms"] == str(topic.retention_hours * 3_600_000)


def test_a_second_run_only_updates_the_configuration() -> None:
    admin = FakeAdmin()
    apply(admin, TOPICS.values(), 1)
    admin.topics["draft.created.v1"]["configs"] = {"retention.ms": "1", "compression.type": "zstd"}
    lines = apply(admin, TOPICS.values(), 1)
    assert all(line.startswith("configured") for line in lines)
    configs = admin.topics["draft.created.v1"]["configs"]
    assert configs["retention.ms"] == str(720 * 3_600_000)
    assert configs["compression.type"] == "zstd", "other settings of the operator stay"


def test_refuses_to_change_the_number_of_partitions() -> None:
    admin = FakeAdmin()
    apply(admin, TOPICS.values(), 1)
    admin.topics["draft.created.v1"]["partitions"] = 2
    with pytest.raises(ValueError, match=r"draft\.created\.v1 has 2 partitions"):
        apply(admin, TOPICS.values(), 1)


def test_raw_text_does_not_outlive_its_retention_in_an_open_segment() -> None:
    for topic in TOPICS.values():
        if topic.raw_zone:
            configs = topic_configs(topic, 1)
            assert int(configs["segment.ms"]) * 4 <= int(configs["retention.ms"])


def test_reads_the_same_kafka_settings_as_a_service(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAILOR_KAFKA_BOOTSTRAP_SERVERS", "kafka:19092")
    monkeypatch.setenv("TAILOR_KAFKA_REPLICATION_FACTOR", "3")
    settings = Settings()
    assert settings.kafka_arguments()["bootstrap_servers"] == ["kafka:19092"]
    assert settings.kafka_replication_factor == 3
