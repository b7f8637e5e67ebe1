"""The sample corpus through ingestion and anonymization as processes, with broker, object store and database."""

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kafka
import pytest
from minio import Minio

from tailor.api.events.v1 import documents_pb2
from tailor.cli.records import to_record
from tailor.cli.submissions import Description, collect
from tailor.events.envelope import Event, decode
from tailor.events.table import tail
from tailor.local import stack
from tailor.local.layout import STORES
from tailor.settings import ServiceSettings
from tests.analyzers import WITH_A_FORM
from tests.conftest import Stores, plan_of, run_stack
from tests.real.kinds import StoreKind

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.release]

SAMPLE = Path(__file__).parents[2] / "deploy" / "sample"
SERVICES = ("ingestion", "anonymization")
DONE = {
    "document.anonymized.v1": documents_pb2.DocumentAnonymized,
    "document.rejected.v1": documents_pb2.DocumentRejected,
}
# An event that is neither JSON nor text.
POISON = b"\x00\xff not an event"


class Running:
    """A stack that runs the two services."""

    def __init__(self, started: stack.Stack) -> None:
        self.started = started
        self.plan = plan_of(started)
        self.stores = Stores(self.plan)
        self.settings = self.stores.settings("anonymization", ServiceSettings)

    def bucket(self, name: str) -> dict[str, bytes]:
        key = self.settings
        client = Minio(
            key.s3_endpoint, key.s3_access_key, key.s3_secret_key.get_secret_value(), secure=False, region=key.s3_region
        )
        names = [item.object_name for item in client.list_objects(name, recursive=True) if item.object_name]
        return {key: client.get_object(name, key).read() for key in names}

    def events(self, until: int, seconds: float) -> list[Event]:
        stop, deadline, read = threading.Event(), time.monotonic() + seconds, []
        threading.Timer(seconds, stop.set).start()
        for event in tail(self.stores.reader, ["document.ingested.v1", *DONE], stop, from_beginning=True):
            read.append(event)
            if sum(event.topic in DONE for event in read) >= until or time.monotonic() > deadline:
                break
        stop.set()
        return read


@pytest.fixture(scope="module")
def running(store_kind: StoreKind) -> Iterator[Running]:
    with run_stack(store_kind, "tailor-flow-", only=(*STORES, *SERVICES)) as started:
        yield Running(started)


def publish(running: Running) -> int:
    submissions = collect([SAMPLE / "documents"], Description())
    records = [to_record(submission) for submission in submissions]
    producer: Any = kafka.KafkaProducer(**running.stores.publisher.kafka_arguments())
    for record in records:
        headers = [(name, value.encode()) for name, value in record.headers.items()]
        producer.send(record.topic, key=record.key.encode(), value=record.value, headers=headers)
    for words in (b"text A of one memo", b"text B of one memo", b"text A of one memo"):
        producer.send(
            "document.submitted.v1",
            key=b"a-b-a",
            value=words,
            headers=[("document-id", b"a-b-a"), ("file-name", b"a.txt")],
        )
    producer.send("document.submitted.v1", key=b"poison", value=POISON)
    producer.flush()
    producer.close()
    return len(records) + 4


def test_every_document_is_accounted_for_and_nothing_personal_passes(running: Running) -> None:
    started = time.monotonic()
    published = publish(running)
    events = running.events(published, 240)
    seconds = time.monotonic() - started
    done: list[Any] = [decode(event, DONE[event.topic]) for event in events if event.topic in DONE]
    reasons = Counter(
        documents_pb2.RejectionReason.Name(message.reason)
        for message in done
        if isinstance(message, documents_pb2.DocumentRejected)
    )
    passed = [message for message in done if isinstance(message, documents_pb2.DocumentAnonymized)]
    print(f"{published} documents in {seconds:.1f} s: {len(passed)} passed, {dict(reasons)}")
    assert len({message.submission_id for message in done}) == published
    assert len(passed) + sum(reasons.values()) == published
    assert reasons["REJECTION_REASON_MALFORMED"] == 1
    assert {"REJECTION_REASON_CORRUPT", "REJECTION_REASON_EMPTY", "REJECTION_REASON_DUPLICATE"} <= set(reasons)
    sequences = Counter(message.version.sequence for message in passed)
    assert sequences[2] == sequences[3] == 1
    assert running.bucket("quarantine") == {}
    _assert_nothing_personal(
        b"\n".join([*running.bucket("corpus").values(), *(event.value or b"" for event in events)]).decode(
            errors="replace"
        )
    )


def _assert_nothing_personal(text: str) -> None:
    gold = json.loads((SAMPLE / "gold.json").read_text(encoding="utf-8"))["documents"]
    fixed_format = WITH_A_FORM | {"ADDRESS"}
    entries = [entry for name, values in gold.items() if name.startswith("documents/") for entry in values]
    survivors = {entry["value"] for entry in entries if entry["type"] in fixed_format and entry["value"] in text}
    assert len(survivors) == 0, f"{len(survivors)} values of a fixed format survive"
    names = {entry["value"] for entry in entries if entry["type"] in ("PERSON", "CLIENT") and " " in entry["value"]}
    left = {name for name in names if name in text}
    assert len(left) <= len(names) * 0.03, f"{len(left)} of {len(names)} full names survive"
