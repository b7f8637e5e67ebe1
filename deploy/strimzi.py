"""The users and topics of Tailor as Strimzi's resources: `python -m deploy.strimzi CLUSTER > tailor-kafka.yaml`.

For a Kafka that Strimzi runs: its operators create the users, their rules and the topics, and `deploy.init.topics` is not needed.
"""

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal

import yaml

from tailor.events.access import AccessRule, KafkaNames, rules
from tailor.events.provision import TopicPlan, check_plan, topic_configs
from tailor.events.topics import Topic, load_topics

API_VERSION = "kafka.strimzi.io/v1"
Authentication = Literal["scram-sha-512", "tls"]


def render(
    topics: Iterable[Topic], names: KafkaNames, plan: TopicPlan, cluster: str, authentication: Authentication
) -> Iterator[dict[str, Any]]:
    """Every KafkaTopic and KafkaUser. Raises ValueError for a plan that cannot work."""
    topics = list(topics)
    check_plan(topics, plan)
    for topic in topics:
        name = plan.prefix + topic.name
        spec = {
            "topicName": name,
            "partitions": plan.count(topic),
            "replicas": plan.replication_factor,
            "config": topic_configs(topic, plan),
        }
        yield _resource("KafkaTopic", name, cluster, spec)
    by_user: dict[str, list[AccessRule]] = {}
    for rule in rules(topics, names):
        by_user.setdefault(rule.user, []).append(rule)
    for user, listed in by_user.items():
        acls = [_acl(rule) for rule in listed]
        spec = {
            "authentication": {"type": authentication},
            "authorization": {"type": "simple", "acls": acls},
        }
        yield _resource("KafkaUser", names.username_of(user), cluster, spec)


def _resource(kind: str, name: str, cluster: str, spec: dict[str, Any]) -> dict[str, Any]:
    metadata = {"name": name, "labels": {"strimzi.io/cluster": cluster}}
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": metadata, "spec": spec}


def _acl(rule: AccessRule) -> dict[str, Any]:
    resource = {"type": rule.kind.lower(), "name": rule.resource, "patternType": "literal"}
    return {"resource": resource, "operations": [rule.operation.capitalize()], "host": "*"}


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the resources to standard output."""
    parser = argparse.ArgumentParser(prog="python -m deploy.strimzi", description=__doc__)
    parser.add_argument("cluster", help="the name of the Kafka resource")
    parser.add_argument("--authentication", choices=("scram-sha-512", "tls"), default="scram-sha-512")
    parser.add_argument("--publisher", action="append", default=[], help="a user outside; by default, `publisher`")
    parser.add_argument("--topic-prefix", default="", help="TAILOR_KAFKA_TOPIC_PREFIX of the installation")
    parser.add_argument("--group-prefix", default="", help="TAILOR_KAFKA_GROUP_PREFIX of the installation")
    parser.add_argument("--replicas", type=int, default=3)
    chosen = parser.parse_args(arguments)
    names = KafkaNames(
        topic_prefix=chosen.topic_prefix,
        group_prefix=chosen.group_prefix,
        publishers=tuple(chosen.publisher) or ("publisher",),
    )
    plan = TopicPlan(chosen.replicas, max(1, chosen.replicas - 1), chosen.topic_prefix)
    resources = render(load_topics().values(), names, plan, chosen.cluster, chosen.authentication)
    yaml.safe_dump_all(resources, sys.stdout, sort_keys=False, width=120)


if __name__ == "__main__":
    main()
