"""`tailor events`: any topic as plain data, without personal data of the raw zone."""

from types import SimpleNamespace

import pytest
from google.protobuf import json_format

from tailor.cli.events import Zone, find_topic, message_type, to_line
from tailor.errors import InvalidArgument
from tailor.events.topics import load_topics
from tests.unit.cli.conftest import Tailor

TOPICS = load_topics()


def record(value: bytes | None) -> SimpleNamespace:
    headers = [("ce_id", b"evt_1"), ("file-name", b"Sarah.md")]
    return SimpleNamespace(partition=1, offset=7, timestamp=1000, key=b"Sarah", value=value, headers=headers)


@pytest.mark.parametrize("name", [name for name, topic in TOPICS.items() if not topic.raw_zone])
def test_decodes_the_example_of_every_topic(name: str) -> None:
    topic = TOPICS[name]
    message = json_format.ParseDict(dict(topic.example), message_type(topic.schema)())

    line = to_line(topic, record(message.SerializeToString()), Zone.SIZES)

    assert (line["topic"], line["partition"], line["offset"]) == (name, 1, 7)
    assert set(topic.example) <= set(line["event"])


def test_shows_only_sizes_and_header_names_of_the_raw_zone() -> None:
    line = to_line(TOPICS["document.submitted.v1"], record(b"Sarah Jenkins"), Zone.SIZES)

    assert "Sarah" not in str(line)
    assert (line["headers"], line["key_bytes"], line["value_bytes"]) == (["ce_id", "file-name"], 5, 13)


def test_shows_values_of_the_raw_zone_on_request() -> None:
    line = to_line(TOPICS["document.submitted.v1"], record(b"Sarah Jenkins"), Zone.VALUES)

    assert line["event"] == "Sarah Jenkins"


def test_marks_undecodable_values() -> None:
    line = to_line(TOPICS["dataset.built.v1"], record(b"\xff\xff\xff"), Zone.SIZES)

    assert line["event"] == {"undecodable": True, "value_bytes": 3}


def test_a_tombstone_has_no_event() -> None:
    assert to_line(TOPICS["specialist.changed.v1"], record(None), Zone.SIZES)["event"] is None


def test_refuses_an_unknown_topic_and_lists_the_known_ones() -> None:
    with pytest.raises(InvalidArgument, match=r"dataset\.built\.v1"):
        find_topic("nonsense")


def test_the_command_refuses_an_unknown_topic(tailor: Tailor) -> None:
    refused = tailor("events", "nonsense")

    assert refused.code == 1
    assert refused.err.startswith("error: UNKNOWN_TOPIC:")
