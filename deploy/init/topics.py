"""Create the topics of `proto/topics.yaml`. A repeated run only updates their configuration."""

import sys
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from pydantic import Field

from tailor.events.topics import Topic, load_topics
from tailor.settings import KafkaSettings

HOUR_MS = 3_600_000
MAX_MESSAGE_BYTES = 1_048_576


class Settings(KafkaSettings):
    """The broker's address, and the number of replicas of each topic."""

    kafka_replication_factor: int = Field(1, ge=1, le=9)


class TopicAdmin(Protocol):
    """The methods of `kafka.KafkaAdminClient` that this program uses."""

    def describe_topics(self) -> list[dict[str, Any]]:
        """All topics with their partitions."""
        ...

    def create_topics(self, new_topics: dict[str, dict[str, Any]]) -> Any:
        """Create topics."""
        ...

    def alter_configs(self, config_resources: list[Any]) -> Any:
        """Set configuration values; values not named stay."""
        ...


def topic_configs(topic: Topic, replication_factor: int) -> dict[str, str]:
    """The topic's configuration at the broker."""
    configs = {
        "max.message.bytes": str(MAX_MESSAGE_BYTES),
        "min.insync.replicas": str(max(1, replication_factor - 1)),
        "cleanup.policy": "compact" if topic.retention_hours is None else "delete",
    }
    if topic.retention_hours is None:
        return configs
    # Kafka deletes only whole segments, so roll them often: raw text must not outlive its retention in an open segment.
    return configs | {
        "retention.ms": str(topic.retention_hours * HOUR_MS),
        "segment.ms": str(min(24, max(1, topic.retention_hours // 4)) * HOUR_MS),
    }


def apply(admin: TopicAdmin, topics: Iterable[Topic], replication_factor: int) -> list[str]:
    """Create missing topics, configure existing ones, and return one line per topic. Idempotent.

    Raises ValueError if the number of partitions differs: changing it would move keys to other partitions and break their order.
    """
    from kafka.admin import ConfigResource, ConfigResourceType

    partitions = {entry["name"]: len(entry["partitions"]) for entry in admin.describe_topics()}
    topics = list(topics)
    _check_partitions(partitions, topics)
    missing = [topic for topic in topics if topic.name not in partitions]
    if missing:
        admin.create_topics(
            {
                topic.name: {
                    "num_partitions": topic.partitions,
                    "replication_factor": replication_factor,
                    "configs": topic_configs(topic, replication_factor),
                }
                for topic in missing
            }
        )
    existing = [topic for topic in topics if topic.name in partitions]
    if existing:
        admin.alter_configs(
            [
                ConfigResource(ConfigResourceType.TOPIC, topic.name, topic_configs(topic, replication_factor))
                for topic in existing
            ]
        )
    return [f"created {topic.name}" for topic in missing] + [f"configured {topic.name}" for topic in existing]


def _check_partitions(partitions: Mapping[str, int], topics: Iterable[Topic]) -> None:
    for topic in topics:
        if partitions.get(topic.name, topic.partitions) != topic.partitions:
            raise ValueError(
                f"{topic.name} has {partitions[topic.name]} partitions, but topics.yaml says {topic.partitions}. "
                "Create a new version of the topic instead."
            )


def main() -> None:
    """Read `TAILOR_KAFKA_*` and create the topics."""
    import kafka

    settings = Settings()
    admin = kafka.KafkaAdminClient(client_id="tailor-init", **settings.kafka_arguments())
    try:
        for line in apply(admin, load_topics().values(), settings.kafka_replication_factor):
            sys.stdout.write(line + "\n")
    finally:
        admin.close()


if __name__ == "__main__":
    main()
