"""Ingestion and registry as processes: a document is erased once and does not come back, and none is lost silently."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import kafka
import pytest

from tailor.api.events.v1 import documents_pb2
from tailor.api.registry.v1 import registry_pb2
from tailor.cli.connections import Connections, Endpoints
from tailor.cli.records import to_tombstone
from tailor.events.envelope import decode
from tailor.events.table import tail
from tailor.local import processes
from tailor.local.layout import STORES
from tailor.settings import KafkaSettings
from tests.conftest import Stores, plan_of, run_stack
from tests.real.kinds import StoreKind
from tests.waiting import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.slow]

SUBMITTED = "document.submitted.v1"
MESSAGES = {
    "document.ingested.v1": documents_pb2.DocumentIngested,
    "document.rejected.v1": documents_pb2.DocumentRejected,
    "document.erased.v1": documents_pb2.DocumentErased,
}


@pytest.fixture(scope="module")
def running(store_kind: StoreKind) -> Iterator[Stores]:
    with run_stack(store_kind, "tailor-tombstone-", only=(*STORES, "ingestion", "registry")) as started:
        yield Stores(plan_of(started))


class Messages:
    """The messages published so far, in the order in which they were read."""

    def __init__(self, settings: KafkaSettings) -> None:
        self.messages: list[Any] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read, args=(settings,), daemon=True)
        self._thread.start()

    def _read(self, settings: KafkaSettings) -> None:
        for event in tail(settings, list(MESSAGES), self._stop, from_beginning=True):
            self.messages.append(decode(event, MESSAGES[event.topic]))

    def next(self, kind: type[Any], number: int = 1) -> Any:
        """Wait for the message of this kind with this number, counted from 1."""

        def matches() -> list[Any]:
            return [message for message in list(self.messages) if isinstance(message, kind)]

        wait_until(lambda: len(matches()) >= number, 40, f"{kind.__name__} with number {number}")
        return matches()[number - 1]

    def close(self) -> None:
        self._stop.set()
        self._thread.join(60)


def publish(settings: KafkaSettings, value: bytes | None, document_id: str) -> None:
    producer: Any = kafka.KafkaProducer(**settings.kafka_arguments())
    record = to_tombstone(document_id)
    headers = [(name, text.encode()) for name, text in record.headers.items()] if value is None else []
    producer.send(SUBMITTED, key=record.key.encode(), value=value, headers=headers)
    producer.flush()
    producer.close()


def test_a_tombstone_erases_a_document_once_and_for_all(
    running: Stores,
) -> None:
    messages, settings = Messages(running.reader), running.publisher
    text = b'{"document_id": "memo-7", "text": "The operating rhythm continues."}'
    publish(settings, text, "memo-7")
    ingested = messages.next(documents_pb2.DocumentIngested)
    for _ in range(2):
        publish(settings, None, "memo-7")
    erased = messages.next(documents_pb2.DocumentErased)
    assert erased.document_id == ingested.document_id
    publish(settings, None, "memo-8")
    unknown = messages.next(documents_pb2.DocumentRejected)
    assert unknown.reason == documents_pb2.REJECTION_REASON_UNKNOWN_DOCUMENT
    publish(settings, text, "memo-7")
    again = messages.next(documents_pb2.DocumentRejected, 2)
    assert again.reason == documents_pb2.REJECTION_REASON_ERASED
    publish(settings, b'{"document_id": "memo-9", "uri": "https://files.example.com/memo-9.md"}', "memo-9")
    rejected = messages.next(documents_pb2.DocumentRejected, 3)
    assert rejected.reason == documents_pb2.REJECTION_REASON_NOT_ALLOWED
    messages.close()
    assert len([message for message in messages.messages if isinstance(message, documents_pb2.DocumentErased)]) == 1


def test_what_expired_while_ingestion_was_away_is_counted_as_rejected(running: Stores) -> None:
    registry, settings = Connections(Endpoints(running.plan.layout.root)).registry, running.kafka_admin

    def flow() -> tuple[int, int]:
        """How many submissions passed ingestion, and how many expired before it read them."""
        answer = registry.GetFlow(registry_pb2.GetFlowRequest(), timeout=60)
        return answer.ingested, answer.rejected["EXPIRED"]

    submitted = 8
    before = flow()
    for pid in processes.find_marked(running.plan.layout.root, "ingestion"):
        os.kill(pid, signal.SIGSTOP)
    expired = dict.fromkeys(_ends(settings), 0)
    for number in range(submitted):
        text = (
            f'{{"document_id": "rest-{number}", "text": "Part {number} of the rules for the daily rest of drivers."}}'
        )
        publish(running.publisher, text.encode(), f"rest-{number}")
        if number == submitted // 2:
            expired = _ends(settings)
    with closing(kafka.KafkaAdminClient(**settings.kafka_arguments())) as admin:
        # As the retention would do it, had ingestion been away for a week.
        admin.delete_records(expired)
    for pid in processes.find_marked(running.plan.layout.root, "ingestion"):
        os.kill(pid, signal.SIGKILL)

    def has_all() -> bool:
        return sum(flow()) - sum(before) >= submitted

    wait_until(has_all, 120, "every submitted document")
    time.sleep(1)
    assert flow() == (before[0] + submitted - submitted // 2 - 1, submitted // 2 + 1)


def _ends(settings: KafkaSettings) -> dict[kafka.TopicPartition, int]:
    with closing(kafka.KafkaConsumer(**settings.kafka_arguments())) as client:
        partitions = [kafka.TopicPartition(SUBMITTED, number) for number in client.partitions_for_topic(SUBMITTED)]
        return dict(client.end_offsets(partitions))
