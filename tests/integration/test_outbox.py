"""The outbox over PostgreSQL."""

import threading
import time
from collections.abc import Iterator

import pytest
from google.protobuf.message import Message
from sqlalchemy import Engine, MetaData

from tailor.api.events.v1 import models_pb2
from tailor.errors import NotFound, Unavailable
from tailor.events.clients import RightMissing, too_large, topic_missing
from tailor.events.faults import Faults
from tailor.events.memory import MemoryProducer
from tailor.events.outbox import BLOCKED_SECONDS, Outbox, outbox_table, prepare_outbox
from tailor.sql import connect, transaction
from tests.waiting import wait_until

pytestmark = pytest.mark.integration

LONG_SECONDS = 600.0


def test_sends_an_event_when_its_transaction_ends_without_waiting_for_the_next_poll(database_url: str) -> None:
    engine = connect(database_url)
    table = outbox_table(metadata := MetaData())
    metadata.create_all(engine)
    producer, stop = MemoryProducer(), threading.Event()
    outbox = Outbox(engine, table, producer, idle_seconds=LONG_SECONDS)
    threading.Thread(target=outbox.run, args=(stop,), daemon=True).start()

    def publish(number: int) -> None:
        with transaction(engine) as connection:
            outbox.add(connection, "run.failed.v1", "run_1", models_pb2.RunFailed(run_id="run_1"), f"evt_{number}")
            time.sleep(0.1)
            assert len(producer.sent) == number

    def wait_for_events(count: int) -> None:
        wait_until(lambda: len(producer.sent) >= count)

    for number in range(3):
        publish(number)
        wait_for_events(number + 1)
        assert [sent[3] for sent in producer.sent] == [f"evt_{sequence}" for sequence in range(number + 1)]

    stop.set()
    publish(3)
    engine.dispose()


class PickyProducer(MemoryProducer):
    """Refuses events by topic: `too.large` for ever, `missing` and `forbidden` until they are mended."""

    def __init__(self) -> None:
        super().__init__()
        self.mended = False

    def send(self, topic: str, key: str, message: Message, event_id: str) -> None:
        if topic == "too.large" and not self.mended:
            raise too_large(topic)
        if topic == "missing" and not self.mended:
            raise topic_missing([topic])
        if topic == "forbidden" and not self.mended:
            raise RightMissing("You lack WRITE.", [topic])
        super().send(topic, key, message, event_id)

    @property
    def ids(self) -> list[str]:
        return [event_id for _, _, _, event_id in self.sent]


class Relay:
    """An outbox with a clock that tests move."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.moment = 1.0
        self.producer, self.faults = PickyProducer(), Faults()
        table = outbox_table(metadata := MetaData())
        metadata.create_all(engine)
        prepare_outbox(engine)
        self.outbox = Outbox(engine, table, self.producer, faults=self.faults, now=lambda: self.moment)

    def add(self, *topics: str) -> None:
        with transaction(self.engine) as connection:
            for topic in topics:
                self.outbox.add(connection, topic, "run_1", models_pb2.RunFailed(run_id="run_1"), f"evt_{topic}")


@pytest.fixture
def relay(database_url: str) -> Iterator[Relay]:
    engine = connect(database_url)
    yield Relay(engine)
    engine.dispose()


def test_an_event_that_can_never_be_sent_is_set_aside_and_holds_up_no_other(relay: Relay) -> None:
    relay.add("too.large", "run.failed.v1")
    assert relay.outbox.relay() == 2
    assert relay.producer.ids == ["evt_run.failed.v1"]
    (unsent,) = relay.outbox.unsent(10)
    assert (unsent.event_id, unsent.topic, unsent.reason) == ("evt_too.large", "too.large", "EVENT_TOO_LARGE")
    assert unsent.size_bytes > 0
    assert relay.outbox.relay() == 0


def test_what_was_set_aside_is_a_notice_with_its_topic_and_reason(relay: Relay) -> None:
    relay.add("too.large", "run.failed.v1")
    stop = threading.Event()
    thread = threading.Thread(target=relay.outbox.run, args=(stop,), daemon=True)
    thread.start()
    wait_until(relay.faults.all, 30)
    stop.set()
    thread.join(60)
    (fault,) = relay.faults.all()
    assert (fault.part, fault.reason, fault.waits) == ("unsent events", "EVENTS_SET_ASIDE", False)
    assert "(1 of too.large: EVENT_TOO_LARGE)" in fault.message


def test_an_event_that_was_set_aside_is_sent_again_on_request(relay: Relay) -> None:
    relay.add("too.large")
    relay.outbox.relay()
    relay.producer.mended = True
    relay.outbox.resend("evt_too.large")
    relay.outbox.relay()
    assert relay.producer.ids == ["evt_too.large"]
    assert relay.outbox.unsent(10) == []
    with pytest.raises(NotFound):
        relay.outbox.resend("evt_too.large")


@pytest.mark.parametrize("topic", ["missing", "forbidden"])
def test_events_of_a_topic_that_takes_none_wait_and_others_pass_them(relay: Relay, topic: str) -> None:
    relay.add(topic, "run.failed.v1", "dataset.built.v1")
    relay.outbox.relay()
    assert relay.producer.ids == ["evt_run.failed.v1", "evt_dataset.built.v1"]
    assert [fault.part for fault in relay.faults.all()] == [f"publishing {topic}"]
    relay.producer.mended = True
    assert relay.outbox.relay() == 0
    relay.moment += BLOCKED_SECONDS
    relay.outbox.relay()
    assert relay.producer.ids[-1] == f"evt_{topic}"
    assert relay.faults.all() == []


def test_without_a_broker_nothing_leaves_the_outbox(relay: Relay) -> None:
    relay.add("run.failed.v1")
    relay.producer.down = True
    with pytest.raises(Unavailable):
        relay.outbox.relay()
    relay.producer.down = False
    assert relay.outbox.relay() == 1
