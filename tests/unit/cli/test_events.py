"""`tailor event read`: any topic as plain data, without personal data of the raw zone."""

from types import SimpleNamespace

import pytest
from google.protobuf import json_format

from tailor.api.events.v1 import operations_pb2
from tailor.api.ingestion.v1 import ingestion_pb2
from tailor.cli.events import MODULES, Zone, find_topic, message_type, to_line
from tailor.errors import InvalidArgument
from tailor.events.topics import load_topics
from tests.unit.cli.conftest import Services, Tailor

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


def test_the_message_of_every_topic_is_loaded_by_the_command_itself() -> None:
    files = {f"tailor/api/events/v1/{name}.proto" for name in MODULES}
    schemas = {topic.schema for topic in load_topics().values() if topic.schema != "raw"}
    assert {message_type(schema).DESCRIPTOR.file.name for schema in schemas} <= files


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
    refused = tailor("event", "read", "nonsense")

    assert refused.code == 1
    assert refused.err.startswith("error: UNKNOWN_TOPIC:")


EVENT = "dataset.built.v1/0/7"


def test_lists_dead_letters_and_unsent_events_and_names_the_services_that_do_not_answer(tailor: Tailor) -> None:
    shown = tailor("event", "dead")
    assert shown.code == 0
    assert "INCOMPLETE_EVENT" in shown.out and "evt_9" in shown.out
    document = tailor("event", "dead", "--output=json").document
    assert [letter["service"] for letter in document["dead_letters"]] == ["training", "training"]
    # The other fakes have no EventService, like services of an earlier release.
    assert "registry" in document["no_answer"] and "training" not in document["no_answer"]


def test_replays_a_dead_letter_or_an_unsent_event(tailor: Tailor, services: Services) -> None:
    assert tailor("event", "replay", "training", EVENT).code == 0
    assert tailor("event", "replay", "training", "evt_9").code == 0
    first, second = services.events.replayed
    assert (first.topic, first.partition, first.offset, first.event_id) == ("dataset.built.v1", 0, 7, "")
    assert (second.topic, second.event_id) == ("", "evt_9")


def test_skips_an_event_only_with_a_reason(tailor: Tailor, services: Services) -> None:
    assert tailor("event", "skip", "training", EVENT).code != 0
    assert services.events.skipped == []
    assert tailor("event", "skip", "training", EVENT, "--reason", "poison").code == 0
    (skipped,) = services.events.skipped
    assert (skipped.topic, skipped.offset, skipped.reason) == ("dataset.built.v1", 7, "poison")


@pytest.mark.parametrize("event", ["dataset.built.v1", "dataset.built.v1/0", "dataset.built.v1/a/7", "a/1/2/3"])
def test_refuses_what_is_no_event(tailor: Tailor, event: str) -> None:
    assert tailor("event", "skip", "training", event, "--reason", "x").err.startswith("error: INVALID_ARGUMENT")


def test_refuses_a_service_that_does_not_exist(tailor: Tailor) -> None:
    assert tailor("event", "dead", "--service", "trainer").err.startswith("error: UNKNOWN_SERVICE")


def test_status_is_not_ready_while_a_part_of_a_service_waits(tailor: Tailor, services: Services) -> None:
    services.events.faults = [
        operations_pb2.Fault(part="kafka", reason="KAFKA_RIGHT_MISSING", message="READ on topic x.", waits=True)
    ]
    document = tailor("status", "--output=json").document
    (training,) = (part for part in document["components"] if part["name"] == "training")
    assert "KAFKA_RIGHT_MISSING" in training["detail"] or training["state"] != "serving"
    assert not document["ready"]


def test_shows_what_became_of_a_document_by_its_publishers_own_id(tailor: Tailor, services: Services) -> None:
    services.ingestion.submissions["memo-7"] = [
        ingestion_pb2.Submission(
            submission_id="sub_2",
            document_id="doc_2",
            rejection_stage="ingestion",
            rejection_reason="MALFORMED",
            hint="`text` must be a text.",
        )
    ]
    shown = tailor("document", "show", "memo-7")
    assert shown.code == 0 and "MALFORMED" in shown.out
    assert tailor("document", "show", "memo-7", "--output=json").document["submissions"][0]["submission_id"] == "sub_2"
    assert tailor("document", "show", "memo-8").code == 1
