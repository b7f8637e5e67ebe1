"""Raw topics keep by consumption: what was handled is deleted after a day, and what was not handled is not."""

from collections.abc import Collection, Mapping
from types import SimpleNamespace
from typing import Any

from kafka import TopicPartition
from kafka.errors import TopicAuthorizationFailedError

from tailor.events.faults import Faults
from tailor.events.raw_topics import RawTopics
from tailor.events.topics import load_topics
from tailor.settings import KafkaSettings

NAME = "document.submitted.v1"
TOPIC = load_topics()[NAME]
DAY_MS = 24 * 3_600_000
NOW_MS = 100 * DAY_MS


class Log:
    """One partition: the times of its events, the oldest that is left, and the group's position."""

    def __init__(self, times_ms: list[int], position: int | None, oldest: int = 0) -> None:
        self.times_ms, self.position, self.oldest = times_ms, position, oldest
        self.asked: dict[Any, int] = {}
        self.deleted: list[dict[Any, int]] = []
        self.forbidden = False

    def partitions_for_topic(self, name: str) -> set[int]:
        return {0} if name == NAME else set()

    def offsets_for_times(self, times: Mapping[Any, int], timeout_ms: int) -> dict[Any, Any]:
        self.asked = dict(times)
        return {
            partition: next(
                (SimpleNamespace(offset=offset) for offset, moment in enumerate(self.times_ms) if moment >= time), None
            )
            for partition, time in times.items()
        }

    def beginning_offsets(self, partitions: Collection[Any], timeout_ms: int) -> dict[Any, int]:
        return dict.fromkeys(partitions, self.oldest)

    def end_offsets(self, partitions: Collection[Any], timeout_ms: int) -> dict[Any, int]:
        return dict.fromkeys(partitions, len(self.times_ms))

    def committed(self, partition: Any, timeout_ms: int) -> int | None:
        return self.position

    def delete_records(self, ends: dict[Any, int]) -> None:
        if self.forbidden:
            raise TopicAuthorizationFailedError
        self.deleted.append(ends)


def ends(log: Log) -> list[int]:
    raw = RawTopics(KafkaSettings(), "ingestion", [TOPIC], Faults(), now=lambda: NOW_MS / 1000)
    return list(raw.find_ends(log).values())


def days_ago(*days: float) -> list[int]:
    return [int(NOW_MS - count * DAY_MS) for count in days]


def test_deletes_what_was_handled_and_is_a_day_old() -> None:
    log = Log(days_ago(3, 2, 1.5, 0.5, 0.1), position=5)
    assert ends(log) == [3]
    assert list(log.asked.values()) == [NOW_MS - DAY_MS]


def test_keeps_what_was_not_handled_however_old_it_is() -> None:
    assert ends(Log(days_ago(6, 5, 4, 3), position=2)) == [2]
    assert ends(Log(days_ago(6, 5), position=None)) == []


def test_deletes_everything_that_was_handled_if_nothing_is_younger() -> None:
    assert ends(Log(days_ago(3, 2), position=2)) == [2]
    assert ends(Log(days_ago(3, 2), position=2, oldest=2)) == []


def test_a_missing_right_to_delete_is_a_notice_that_names_the_topic() -> None:
    faults, log = Faults(), Log([], 0)
    raw = RawTopics(KafkaSettings(), "ingestion", [TOPIC], faults)
    log.forbidden = True
    raw.trim(log, {TopicPartition(NAME, 0): 3})
    (fault,) = faults.all()
    assert not fault.waits and "DELETE on topic document.submitted.v1" in fault.message
    log.forbidden = False
    raw.trim(log, {TopicPartition(NAME, 0): 3})
    assert faults.all() == [] and log.deleted == [{TopicPartition(NAME, 0): 3}]


def test_a_misspelt_topic_is_named_and_others_of_the_cluster_are_not() -> None:
    faults = Faults()
    raw = RawTopics(KafkaSettings(), "ingestion", [TOPIC], faults)
    raw.report_misspelt(["document.submited.v1", NAME, "document.rejected.v1", "orders", "__consumer_offsets"])
    assert [(fault.part, fault.reason) for fault in faults.all()] == [("topic document.submited.v1", "MISSPELT_TOPIC")]


def test_topics_of_other_installations_are_not_misspelt_and_a_notice_ends_with_its_topic() -> None:
    faults = Faults()
    raw = RawTopics(KafkaSettings(kafka_topic_prefix="acme."), "ingestion", [TOPIC], faults)
    raw.report_misspelt([NAME, f"acme2.{NAME}", f"dev.{NAME}", f"acme.{NAME}", "acme.document.submited.v1"])
    assert [fault.part for fault in faults.all()] == ["topic acme.document.submited.v1"]
    raw.report_misspelt([f"acme.{NAME}"])
    assert faults.all() == []


def test_raw_topics_name_both_retentions() -> None:
    raw = [topic for topic in load_topics().values() if topic.raw_zone]
    assert all(topic.unread_retention_hours and topic.retention_hours for topic in raw)
    assert all((topic.kept_hours or 0) > (topic.retention_hours or 0) for topic in raw)
