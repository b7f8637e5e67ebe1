"""The one list of topics, read from `proto/topics.yaml`."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

TOPICS_FILE = Path(__file__).parents[2] / "proto" / "topics.yaml"
RAW = "raw"


@dataclass(frozen=True)
class Topic:
    """One topic. `retention_hours` is None if it is compacted.

    If `unread_retention_hours` is set, the broker keeps events that long, and the consumer deletes those that it handled `retention_hours`
    ago: the topic keeps by consumption, not only by the clock.
    """

    name: str
    description: str
    schema: str
    key: str
    partitions: int
    retention_hours: int | None
    raw_zone: bool
    producers: tuple[str, ...]
    consumers: Mapping[str, str]
    example: Mapping[str, Any]
    unread_retention_hours: int | None = None

    @property
    def kept_hours(self) -> int | None:
        """How long the broker keeps an event that nobody deletes; None if the topic is compacted."""
        return self.unread_retention_hours or self.retention_hours


@cache
def load_topics(path: Path = TOPICS_FILE) -> Mapping[str, Topic]:
    """Read all topics, by name. The file is read once."""
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    return MappingProxyType({name: _topic(name, entry) for name, entry in document["topics"].items()})


def _topic(name: str, entry: Mapping[str, Any]) -> Topic:
    return Topic(
        name=name,
        description=entry["description"],
        schema=entry["schema"],
        key=entry["key"],
        partitions=int(entry["partitions"]),
        retention_hours=None if entry["retention"] == "compact" else int(entry["retention"]),
        raw_zone=bool(entry.get("raw_zone", False)),
        producers=tuple(entry["producers"]),
        consumers=dict(entry["consumers"]),
        example=entry["example"],
        unread_retention_hours=int(entry["unread_retention"]) if "unread_retention" in entry else None,
    )
