"""The outbox over PostgreSQL."""

import threading
import time

import pytest
from sqlalchemy import MetaData

from tailor.api.events.v1 import models_pb2
from tailor.events.memory import MemoryProducer
from tailor.events.outbox import Outbox, outbox_table
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
            time.sleep(0.3)
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
