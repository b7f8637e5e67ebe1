"""Offsets of partitions.

kafka-python leaves out a partition whose leader it does not know at the moment, as happens while a broker returns: it then fails with a
KeyError, or answers as if the partition had no younger record. These functions raise LeaderNotAvailableError instead, a KafkaError.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Any

from kafka.errors import LeaderNotAvailableError


def find_starts(client: Any, partitions: Collection[Any], timeout_ms: int | None = None) -> dict[Any, int]:
    """The oldest offset of each partition. Raises KafkaError."""
    return _ask(client.beginning_offsets, partitions, timeout_ms)


def find_ends(client: Any, partitions: Collection[Any], timeout_ms: int | None = None) -> dict[Any, int]:
    """The offset after the newest record of each partition. Raises KafkaError."""
    return _ask(client.end_offsets, partitions, timeout_ms)


def find_since(client: Any, times_ms: Mapping[Any, int], timeout_ms: int | None = None) -> dict[Any, int]:
    """The first offset of each partition at or after its time, in ms since 1970; its end if no record is as young. Raises KafkaError."""
    # Asked first: a record that comes in between is only kept longer.
    ends = find_ends(client, list(times_ms), timeout_ms)
    offsets = client.offsets_for_times(dict(times_ms), timeout_ms=timeout_ms)
    missing = [partition for partition in times_ms if offsets.get(partition) is None]
    # Known before and after: known in between too.
    find_ends(client, missing, timeout_ms)
    return {
        partition: ends[partition] if partition in missing else int(offsets[partition].offset) for partition in times_ms
    }


def _ask(ask: Callable[..., Mapping[Any, int]], partitions: Collection[Any], timeout_ms: int | None) -> dict[Any, int]:
    if not partitions:
        return {}
    try:
        return dict(ask(list(partitions), timeout_ms=timeout_ms))
    except KeyError:
        raise LeaderNotAvailableError("the leader of a partition is not known yet") from None
