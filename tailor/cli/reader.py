"""Read topics without a consumer group, from positions that are fixed when the reader is created."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import Enum
from typing import Any, Self

import kafka
from kafka.errors import KafkaError

from tailor.errors import NotFound, Reason, Unavailable
from tailor.events.offsets import find_ends, find_starts
from tailor.settings import KafkaSettings


class Start(Enum):
    """Where to start reading."""

    BEGINNING = "beginning"
    END = "end"


class TopicReader:
    """Reads records of kafka-python. Not thread-safe. Every method raises Unavailable if no broker answers."""

    def __init__(self, settings: KafkaSettings, topics: Sequence[str], start: Start) -> None:
        self._prefix = settings.kafka_topic_prefix
        with _wrap_errors():
            self._client: Any = kafka.KafkaConsumer(
                enable_auto_commit=False, client_id="tailor-cli", **settings.kafka_arguments()
            )
            names = [self._prefix + name for name in topics]
            self._partitions = [kafka.TopicPartition(name, part) for name in names for part in self._parts(name)]
            self._client.assign(self._partitions)
            # Fix the offsets now, so that every record published after this line is read.
            find = find_ends if start is Start.END else find_starts
            for partition, offset in find(self._client, self._partitions).items():
                self._client.seek(partition, offset)

    def _parts(self, topic: str) -> list[int]:
        parts = self._client.partitions_for_topic(topic)
        if not parts:
            raise NotFound(Reason.UNKNOWN_TOPIC, f"The broker has no topic {topic}, or you have no right to it.")
        return sorted(parts)

    def topic(self, record: Any) -> str:
        """The name of a record's topic in `proto/topics.yaml`."""
        return str(record.topic).removeprefix(self._prefix)

    def poll(self, timeout_ms: int = 200) -> list[Any]:
        """The next records. Blocks until there are some; returns an empty list after the timeout."""
        with _wrap_errors():
            batches = self._client.poll(timeout_ms=timeout_ms)
        return [record for records in batches.values() for record in records]

    def close(self) -> None:
        with _wrap_errors():
            self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextmanager
def _wrap_errors() -> Iterator[None]:
    try:
        yield
    except KafkaError as error:
        raise Unavailable(Reason.KAFKA_UNAVAILABLE, f"The broker does not answer ({type(error).__name__}).") from None
