"""Drafts on their way to the broker."""

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from google.protobuf.message import Message

from services.inference.adapters.events import DRAFTS, DraftPublisher, Journal
from services.inference.domain import Draft, PromptRecord, ServedModel
from tailor.api.events.v1 import drafts_pb2
from tailor.errors import ResourceExhausted, Unavailable
from tailor.events.clients import too_large
from tailor.events.memory import MemoryProducer
from tests.waiting import wait_until

KILLED = """
import os, signal, sys
from pathlib import Path
from tests.unit.inference.test_drafts import draft, events
drafts = events(Path(sys.argv[1]))
for number in range(20):
    drafts.publish(draft(number))
os.kill(os.getpid(), signal.SIGKILL)
"""


def draft(number: int) -> Draft:
    return Draft(f"drf_{number}", ServedModel("reports", 2), "key_1", PromptRecord("aa"), "bb", 4, 3, "stop", 0.1, 0.5)


def events(path: Path, producer: MemoryProducer | None = None, limit: int = 100) -> DraftPublisher:
    return DraftPublisher(producer or MemoryProducer(), Journal(path, limit), "tiny")


@contextmanager
def running(drafts: DraftPublisher) -> Iterator[None]:
    stop = threading.Event()
    thread = threading.Thread(target=drafts.run, args=(stop,))
    thread.start()
    yield
    stop.set()
    thread.join(60)
    assert not thread.is_alive()


def stated(producer: MemoryProducer) -> list[drafts_pb2.DraftCreated]:
    return [message for message in producer.messages(DRAFTS) if isinstance(message, drafts_pb2.DraftCreated)]


def test_a_draft_waits_for_the_broker_but_no_answer_does(tmp_path: Path) -> None:
    producer = MemoryProducer()
    producer.down = True
    drafts = events(tmp_path / "drafts.sqlite", producer)
    with running(drafts):
        drafts.publish(draft(1))
        assert not producer.sent
        producer.down = False
        wait_until(lambda: producer.sent)
    (message,) = stated(producer)
    assert (message.draft_id, message.specialist, message.generation, message.base, message.key_id) == (
        "drf_1",
        "reports",
        2,
        "tiny",
        "key_1",
    )


def test_publishes_everything_before_the_stop_in_order(tmp_path: Path) -> None:
    producer = MemoryProducer()
    drafts = events(tmp_path / "drafts.sqlite", producer, limit=1000)
    with running(drafts):
        for number in range(250):
            drafts.publish(draft(number))
    assert [message.draft_id for message in stated(producer)] == [f"drf_{number}" for number in range(250)]


def test_publishes_the_journal_of_a_killed_replica(tmp_path: Path) -> None:
    path = tmp_path / "drafts.sqlite"
    killed = subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False)
    assert killed.returncode == -signal.SIGKILL
    producer = MemoryProducer()
    with running(events(path, producer)):
        pass
    assert [message.draft_id for message in stated(producer)] == [f"drf_{number}" for number in range(20)]


def test_publishes_at_the_next_start_what_the_broker_did_not_accept(tmp_path: Path) -> None:
    producer = MemoryProducer()
    producer.down = True
    first = events(tmp_path / "drafts.sqlite", producer)
    with running(first):
        first.publish(draft(1))
    assert not producer.sent
    producer.down = False
    with running(events(tmp_path / "drafts.sqlite", producer)):
        pass
    assert [message.draft_id for message in stated(producer)] == ["drf_1"]


def test_sends_a_draft_directly_if_the_journal_fails(tmp_path: Path) -> None:
    producer = MemoryProducer()
    journal = Journal(tmp_path / "drafts.sqlite", 10)
    journal.close()
    drafts = DraftPublisher(producer, journal, "tiny")
    drafts.publish(draft(1))
    assert [message.draft_id for message in stated(producer)] == ["drf_1"]
    producer.down = True
    with pytest.raises(Unavailable):
        drafts.publish(draft(2))


def test_refuses_a_draft_beyond_the_limit(tmp_path: Path) -> None:
    drafts = events(tmp_path / "drafts.sqlite", limit=2)
    drafts.publish(draft(1))
    drafts.publish(draft(2))
    with pytest.raises(ResourceExhausted) as refused:
        drafts.publish(draft(3))
    assert refused.value.reason == "TOO_MANY_DRAFTS"


def test_names_a_broken_journal_in_the_error(tmp_path: Path) -> None:
    (tmp_path / "drafts.sqlite").write_bytes(b"no journal at all " * 100)
    with pytest.raises(Unavailable, match="TAILOR_DATA_DIR"):
        Journal(tmp_path / "drafts.sqlite", 10)


class FullProducer(MemoryProducer):
    """Takes no event of `drf_1`, ever."""

    def send(self, topic: str, key: str, message: Message, event_id: str) -> None:
        if key == "drf_1":
            raise too_large(topic)
        super().send(topic, key, message, event_id)


def test_a_draft_that_can_never_be_published_holds_up_no_other(tmp_path: Path) -> None:
    producer = FullProducer()
    drafts = events(tmp_path / "drafts.sqlite", producer)
    drafts.publish(draft(1))
    drafts.publish(draft(2))
    with running(drafts):
        pass
    assert [message.draft_id for message in stated(producer)] == ["drf_2"]
