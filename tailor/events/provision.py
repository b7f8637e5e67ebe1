"""Creating the topics of `proto/topics.yaml` at a broker, and bringing existing ones up to date."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tailor.errors import FailedPrecondition, Reason
from tailor.events.topics import Topic

if TYPE_CHECKING:
    from kafka.admin import KafkaAdminClient

HOUR_MS = 3_600_000
MAX_MESSAGE_BYTES = 1_048_576


@dataclass(frozen=True)
class TopicPlan:
    """How the topics are laid out at one cluster. `partitions` names topics that have more partitions than `topics.yaml` says."""

    replication_factor: int = 3
    min_insync_replicas: int = 2
    prefix: str = ""
    partitions: Mapping[str, int] = field(default_factory=dict)

    def count(self, topic: Topic) -> int:
        """The number of partitions of a topic."""
        return self.partitions.get(topic.name, topic.partitions)


def topic_configs(topic: Topic, plan: TopicPlan) -> dict[str, str]:
    """The topic's configuration at the broker."""
    configs = {
        "max.message.bytes": str(MAX_MESSAGE_BYTES),
        "min.insync.replicas": str(plan.min_insync_replicas),
        "cleanup.policy": "compact" if topic.retention_hours is None else "delete",
    }
    if topic.retention_hours is None:
        # Only closed segments are compacted, and a replica reads the topic from its beginning: after a day, old values are gone.
        return configs | {"segment.ms": str(24 * HOUR_MS), "max.compaction.lag.ms": str(24 * HOUR_MS)}
    return configs | {
        "retention.ms": str((topic.kept_hours or 0) * HOUR_MS),
        # Kafka deletes only whole segments, so roll them often: raw text must not outlive its retention in an open segment.
        "segment.ms": str(min(24, max(1, topic.retention_hours // 4)) * HOUR_MS),
        # The retention counts from the arrival. By the producer's time, a record that was copied from elsewhere would be deleted at once.
        "message.timestamp.type": "LogAppendTime",
    }


def apply_topics(admin: "KafkaAdminClient", topics: Iterable[Topic], plan: TopicPlan) -> list[str]:
    """Create missing topics, configure existing ones, and return one line per topic. Idempotent.

    Raises FailedPrecondition if a topic has another number of partitions, ValueError if the plan cannot work, and KafkaError or
    FailedPrecondition with the broker's words if the broker refuses.
    """
    topics = list(topics)
    check_plan(topics, plan)
    partitions = _partitions(admin)
    _check_partitions(partitions, topics, plan)
    missing = [topic for topic in topics if plan.prefix + topic.name not in partitions]
    existing = [topic for topic in topics if plan.prefix + topic.name in partitions]
    if missing:
        admin.create_topics({plan.prefix + topic.name: _new_topic(topic, plan) for topic in missing})
    if existing:
        _configure(admin, existing, plan)
    return [f"created {plan.prefix}{topic.name}" for topic in missing] + [
        f"configured {plan.prefix}{topic.name}" for topic in existing
    ]


def grow_topics(admin: "KafkaAdminClient", topics: Iterable[Topic], plan: TopicPlan) -> list[str]:
    """Raise topics to the plan's numbers of partitions, and return one line for each that grew. Idempotent.

    A key may move to another partition: let the consumers finish before, or two versions of one document may change places.
    """
    topics = list(topics)
    check_plan(topics, plan)
    partitions = _partitions(admin)
    growing = {
        plan.prefix + topic.name: plan.count(topic)
        for topic in topics
        if 0 < partitions.get(plan.prefix + topic.name, 0) < plan.count(topic)
    }
    if growing:
        admin.create_partitions(growing)
    return [f"{name}: {partitions[name]} partitions became {count}" for name, count in growing.items()]


def check_plan(topics: Iterable[Topic], plan: TopicPlan) -> None:
    """Raise ValueError, naming the setting, if the plan loses events or names topics that cannot have more partitions."""
    if plan.min_insync_replicas > plan.replication_factor:
        raise ValueError(
            f"min.insync.replicas is {plan.min_insync_replicas}, but each partition has {plan.replication_factor} replicas: "
            "nothing could be written. Lower TAILOR_KAFKA_MIN_INSYNC_REPLICAS."
        )
    listed = {topic.name: topic for topic in topics}
    for name, count in plan.partitions.items():
        if name not in listed:
            raise ValueError(f"TAILOR_KAFKA_PARTITIONS names {name}, which topics.yaml does not list.")
        topic = listed[name]
        if topic.retention_hours is None and count != topic.partitions:
            raise ValueError(
                f"{name} is compacted and keeps {topic.partitions} partition(s): after a change, the old value of a key would stay in its "
                "old partition. Take it out of TAILOR_KAFKA_PARTITIONS."
            )
        if count < topic.partitions:
            raise ValueError(f"{name} has {topic.partitions} partitions by topics.yaml; {count} are too few.")


def find_short_memory(admin: "KafkaAdminClient", topics: Iterable[Topic]) -> str | None:
    """A warning if the broker forgets the positions of its groups before the events of these topics expire, or None.

    A service that was away for longer than that would not know what it had not read. Only the broker's own configuration can change it.
    Raises KafkaError, or KeyError if the broker does not show its configuration.
    """
    from kafka.admin import ConfigResource, ConfigResourceType

    kept = max(topic.kept_hours or 0 for topic in topics if topic.consumers) * 60
    broker = str(admin.describe_cluster()["brokers"][0]["broker_id"])
    described = admin.describe_configs([ConfigResource(ConfigResourceType.BROKER, broker, None)], config_filter="all")
    minutes = int(described["broker"][broker]["offsets.retention.minutes"]["value"])
    if minutes > kept:
        return None
    return (
        f"warning: the broker forgets after {minutes} minutes what was read, but keeps events for {kept}. Set its "
        f"`offsets.retention.minutes` above {kept}, so that a service that was away for so long can still report what it missed."
    )


def _partitions(admin: "KafkaAdminClient") -> dict[str, int]:
    return {entry["name"]: len(entry["partitions"]) for entry in admin.describe_topics()}


def _check_partitions(partitions: Mapping[str, int], topics: Iterable[Topic], plan: TopicPlan) -> None:
    for topic in topics:
        name, wanted = plan.prefix + topic.name, plan.count(topic)
        present = partitions.get(name, wanted)
        if present < wanted:
            text = (
                f"{name} has {present} partitions, but {wanted} are set. Grow it: python -m deploy.init.topics --grow."
            )
            raise FailedPrecondition(Reason.WRONG_PARTITIONS, text)
        if present > wanted:
            text = (
                f"{name} has {present} partitions, but {wanted} are set. Set TAILOR_KAFKA_PARTITIONS to what is there."
            )
            raise FailedPrecondition(Reason.WRONG_PARTITIONS, text)


def _new_topic(topic: Topic, plan: TopicPlan) -> dict[str, Any]:
    return {
        "num_partitions": plan.count(topic),
        "replication_factor": plan.replication_factor,
        "configs": topic_configs(topic, plan),
    }


def _configure(admin: "KafkaAdminClient", topics: list[Topic], plan: TopicPlan) -> None:
    from kafka.admin import ConfigResource, ConfigResourceType

    results = admin.alter_configs(
        [
            ConfigResource(ConfigResourceType.TOPIC, plan.prefix + topic.name, topic_configs(topic, plan))
            for topic in topics
        ]
    )
    # kafka-python returns a broker's refusals instead of raising them.
    refused = {name: result for name, result in results.get("topic", {}).items() if result != "OK"}
    if refused:
        text = "; ".join(f"{name}: {result}" for name, result in sorted(refused.items()))
        raise FailedPrecondition(Reason.TOPIC_NOT_CONFIGURED, f"The broker refuses the configuration of {text}")
