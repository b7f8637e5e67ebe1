"""Offsets of partitions, asked of the real kafka-python client while the leader of one partition is not known."""

from collections.abc import Callable, Collection, Mapping
from types import SimpleNamespace
from typing import Any

import pytest
from kafka import TopicPartition
from kafka.consumer.fetcher import Fetcher
from kafka.errors import LeaderNotAvailableError
from kafka.structs import OffsetAndTimestamp

from tailor.events.clients import BrokerLost, broker_errors
from tailor.events.offsets import find_ends, find_since, find_starts

KNOWN, UNKNOWN = TopicPartition("documents", 0), TopicPartition("documents", 1)


class Answers:
    """What kafka-python's network returns: offsets of those partitions whose leaders it knows."""

    def __init__(self, *leaders: TopicPartition) -> None:
        self.leaders = leaders

    def run(self, _work: Callable[..., Any], times: Mapping[Any, int], _timeout_ms: int | None) -> dict[Any, Any]:
        # -2 asks for the oldest offset, -1 for the end, and no record is as young as any other time.
        offsets = {-2: 3, -1: 9}
        return {
            each: OffsetAndTimestamp(offsets[int(time)], -1, -1)
            for each, time in times.items()
            if each in self.leaders and int(time) in offsets
        }


class Client:
    """The offset methods of `kafka.KafkaConsumer`, which ask its fetcher."""

    def __init__(self, answers: Answers) -> None:
        self._fetcher = SimpleNamespace(_net=answers, _fetch_offsets_by_times_async=None)
        self._fetcher.beginning_or_end_offset = lambda *arguments: Fetcher.beginning_or_end_offset(
            self._fetcher, *arguments
        )

    def beginning_offsets(self, partitions: Collection[Any], timeout_ms: int | None = None) -> Any:
        return Fetcher.beginning_offsets(self._fetcher, partitions, timeout_ms)

    def end_offsets(self, partitions: Collection[Any], timeout_ms: int | None = None) -> Any:
        return Fetcher.end_offsets(self._fetcher, partitions, timeout_ms)

    def offsets_for_times(self, times: Mapping[Any, int], timeout_ms: int | None = None) -> Any:
        return Fetcher.offsets_by_times(self._fetcher, times, timeout_ms)


@pytest.mark.parametrize("find", [find_starts, find_ends])
def test_a_partition_without_a_known_leader_is_a_lost_broker(find: Callable[..., Any]) -> None:
    client = Client(Answers(KNOWN))
    with pytest.raises(KeyError):
        client.end_offsets([KNOWN, UNKNOWN])
    with pytest.raises(BrokerLost), broker_errors():
        find(client, [KNOWN, UNKNOWN])


def test_a_partition_whose_leader_is_not_known_does_not_count_as_one_without_younger_records() -> None:
    client = Client(Answers(KNOWN))
    assert client.offsets_for_times({UNKNOWN: 1_000}) == {UNKNOWN: None}
    with pytest.raises(LeaderNotAvailableError):
        find_since(client, {KNOWN: 1_000, UNKNOWN: 1_000})


def test_offsets_of_partitions_whose_leaders_are_known() -> None:
    client = Client(Answers(KNOWN, UNKNOWN))
    assert find_starts(client, [KNOWN, UNKNOWN]) == {KNOWN: 3, UNKNOWN: 3}
    assert find_since(client, {KNOWN: 1_000}) == {KNOWN: 9}
    assert find_ends(client, []) == {}
