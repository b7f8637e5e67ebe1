"""Every topic of `proto/topics.yaml` is complete and consistent."""

import importlib
import json
import pkgutil

import pytest
from google.protobuf import descriptor_pool, json_format, message_factory

import tailor.api
from tailor.events.access import PUBLISHERS
from tailor.events.topics import RAW, Topic, load_topics
from tailor.storage.buckets import ACCESS

TOPICS = load_topics()
SERVICES = set(ACCESS) - {"training-worker"}

for module in pkgutil.walk_packages(tailor.api.__path__, "tailor.api."):
    if module.name.endswith("_pb2"):
        importlib.import_module(module.name)


@pytest.mark.parametrize("topic", TOPICS.values(), ids=lambda topic: topic.name)
def test_every_topic_has_an_example_that_its_schema_decodes(topic: Topic) -> None:
    if topic.schema == RAW:
        assert json.loads(json.dumps(topic.example["json"]))["document_id"]
        return
    message_type = message_factory.GetMessageClass(descriptor_pool.Default().FindMessageTypeByName(topic.schema))
    message = json_format.ParseDict(dict(topic.example), message_type())
    assert message_type.FromString(message.SerializeToString()) == message


@pytest.mark.parametrize("topic", TOPICS.values(), ids=lambda topic: topic.name)
def test_every_producer_and_consumer_is_a_service(topic: Topic) -> None:
    assert set(topic.producers) <= SERVICES | {*PUBLISHERS}
    assert set(topic.consumers) <= SERVICES
    assert set(topic.consumers.values()) <= {"shared", "every-replica", "both"}


def test_only_ingestion_reads_the_topics_of_the_raw_zone() -> None:
    raw = [topic for topic in TOPICS.values() if topic.raw_zone]
    assert raw
    assert all(set(topic.consumers) == {"ingestion"} for topic in raw)
    assert all(topic.retention_hours is not None and topic.retention_hours <= 24 for topic in raw)
