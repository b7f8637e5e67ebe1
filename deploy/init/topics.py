"""Makes the topics of `proto/topics.yaml`; run again, it brings retention up to date and changes nothing else."""

import sys
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from pydantic import Field

from tailor.events.topics import Topic, load_topics
from tailor.settings import KafkaSettings

HOUR_MS = 3_600_000
MAX_MESSAGE_BYTES = 1_048_576


class Settings(KafkaSettings):
    """Where the broker is, and how many copies it keeps."""

    kafka_replication_factor: int = Field(1, ge=1, le=9)


class Admin(Protocol):
    """What this program needs of `kafka.KafkaAdminClient`."""

    def describe_topics(self) -> list[dict[str, Any]]:
        """Every topic with its partitions."""
        ...

    def create_topics(self, new_topics: dict[str, dict[str, Any]]) -> Any:
        """Make topics."""
        ...

    def alter_configs(self, config_resources: list[Any]) -> Any:
        """Set some configuration values; the others stay."""
        ...


def topic_configs(topic: Topic, replication_factor: int) -> dict[str, str]:
    """A topic's configuration at the broker."""
    configs = {
        "max.message.bytes": str(MAX_MESSAGE_BYTES),
        "min.insync.replicas": str(max(1, replication_factor - 1)),
        "cleanup.policy": "compact" if topic.retention_hours is None else "delete",
    }
    if topic.retention_hours is None:
        return configs
    # A segment is deleted only whole: raw text must not outlive its hours by a half-full segment.
    return configs | {
        "retention.ms": str(topic.retention_hours * HOUR_MS),
        "segment.ms": str(min(24, max(1, topic.retention_hours // 4)) * HOUR_MS),
    }


def apply(admin: Admin, topics: Iterable[Topic], replication_factor: int) -> list[str]:
    """Make what is missing and configure what exists; what was done, a line each. ValueError where partitions differ:
    changing their number would move keys, and with them the order of what is on its way."""
    from kafka.admin import ConfigResource, ConfigResourceType

    present = {entry["name"]: len(entry["partitions"]) for entry in admin.describe_topics()}
    wanted = list(topics)
    _check_partitions(present, wanted)
    missing = [topic for topic in wanted if topic.name not in present]
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
    kept = [topic for topic in wanted if topic.name in present]
    if kept:
        admin.alter_configs(
            [
                ConfigResource(ConfigResourceType.TOPIC, topic.name, topic_configs(topic, replication_factor))
                for topic in kept
            ]
        )
    return [f"created {topic.name}" for topic in missing] + [f"configured {topic.name}" for topic in kept]


def _check_partitions(present: Mapping[str, int], wanted: Iterable[Topic]) -> None:
    for topic in wanted:
        if present.get(topic.name, topic.partitions) != topic.partitions:
            raise ValueError(
                f"{topic.name} has {present[topic.name]} partitions, topics.yaml says {topic.partitions}: "
                "publish to a new version of the topic instead"
            )


def main() -> None:
    """Read `TAILOR_KAFKA_*` and make the topics."""
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
