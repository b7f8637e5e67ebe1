"""The Kafka Connect examples: they publish to topics that outsiders write, create none, and hold no secret."""

from pathlib import Path

import pytest

from tailor.events.topics import load_topics

FOLDER = Path(__file__).parents[3] / "deploy" / "kafka" / "connect"
CONNECTORS = sorted(path.name for path in FOLDER.glob("*-source.properties"))
OUTSIDE = {topic.name for topic in load_topics().values() if "publisher" in topic.producers}


def properties(name: str) -> dict[str, str]:
    """The entries of a file of Java properties."""
    lines = (FOLDER / name).read_text(encoding="utf-8").splitlines()
    pairs = [line.partition("=") for line in lines if line.strip() and not line.startswith("#")]
    assert all(separator for _, separator, _ in pairs)
    return {key: value for key, _, value in pairs}


def test_there_is_an_example_for_files_tables_and_buckets() -> None:
    assert CONNECTORS == ["file-source.properties", "jdbc-source.properties", "s3-source.properties"]


@pytest.mark.parametrize("name", CONNECTORS)
def test_every_connector_publishes_to_a_topic_that_outsiders_write(name: str) -> None:
    entries = properties(name)
    assert (entries.get("topic") or entries["topic.prefix"]) in OUTSIDE
    assert entries["tasks.max"] == "1"


@pytest.mark.parametrize("name", [*CONNECTORS, "worker.properties"])
def test_secrets_and_places_come_from_the_environment(name: str) -> None:
    secret = ("password", "secret", "jaas", "bootstrap", "connection.", "access.key", "filename")
    for key, value in properties(name).items():
        if any(word in key for word in secret):
            assert value.startswith("${env:"), key


def test_the_worker_creates_no_topic_and_loses_no_record() -> None:
    worker = properties("worker.properties")
    assert worker["topic.creation.enable"] == worker["producer.allow.auto.create.topics"] == "false"
    assert worker["errors.tolerance"] == "none" and worker["producer.acks"] == "all"
    assert worker["listeners"].startswith("http://127.0.0.1:")
