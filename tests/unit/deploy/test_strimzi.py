"""Strimzi's resources say the same as the rules that `deploy.init.topics` creates."""

from typing import Any

import pytest
import yaml

from deploy.strimzi import main
from tailor.events.access import KafkaNames, rules
from tailor.events.topics import load_topics


def rendered(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, Any]]:
    main(["kafka", *arguments])
    return list(yaml.safe_load_all(capsys.readouterr().out))


def test_every_user_has_exactly_the_listed_rules(capsys: pytest.CaptureFixture[str]) -> None:
    found = {
        (user["metadata"]["name"], operation.upper(), acl["resource"]["type"].upper(), acl["resource"]["name"])
        for user in rendered(capsys)
        if user["kind"] == "KafkaUser"
        for acl in user["spec"]["authorization"]["acls"]
        for operation in acl["operations"]
    }
    names = KafkaNames()
    assert found == {
        (names.username_of(rule.user), rule.operation, rule.kind, rule.resource)
        for rule in rules(load_topics().values(), names)
    }


def test_every_topic_has_its_partitions_and_three_copies(capsys: pytest.CaptureFixture[str]) -> None:
    topics = {each["spec"]["topicName"]: each["spec"] for each in rendered(capsys) if each["kind"] == "KafkaTopic"}
    assert {name: spec["partitions"] for name, spec in topics.items()} == {
        name: topic.partitions for name, topic in load_topics().items()
    }
    assert {(spec["replicas"], spec["config"]["min.insync.replicas"]) for spec in topics.values()} == {(3, "2")}


def test_users_may_have_certificates_and_further_publishers(capsys: pytest.CaptureFixture[str]) -> None:
    resources = rendered(capsys, "--authentication", "tls", "--publisher", "erp", "--topic-prefix", "acme.")
    users = {each["metadata"]["name"]: each["spec"] for each in resources if each["kind"] == "KafkaUser"}
    assert "tailor-erp" in users and "tailor-publisher" not in users
    assert {spec["authentication"]["type"] for spec in users.values()} == {"tls"}
    assert all(each["metadata"]["labels"]["strimzi.io/cluster"] == "kafka" for each in resources)
    assert all(each["metadata"]["name"].startswith("acme.") for each in resources if each["kind"] == "KafkaTopic")
