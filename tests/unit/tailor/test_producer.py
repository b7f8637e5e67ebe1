"""Producing through a client that is none, to a broker that is a socket."""

import socket
import time
from typing import Any

from kafka.errors import KafkaTimeoutError, NotLeaderForPartitionError

from tailor.api.events.v1 import models_pb2
from tailor.events.producer import KafkaProducer
from tailor.settings import KafkaSettings


class Taken:
    def get(self, timeout: float) -> None:
        del timeout


class FakeClient:
    """Refuses what it is told to, and cannot flush."""

    def __init__(self) -> None:
        self.refusals = 0
        self.keys: list[bytes] = []

    def send(self, topic: str, key: bytes, **record: Any) -> Taken:
        del topic, record
        if self.refusals:
            self.refusals -= 1
            raise NotLeaderForPartitionError
        self.keys.append(key)
        return Taken()

    def close(self, timeout: float) -> None:
        raise KafkaTimeoutError(timeout)


def test_what_a_lost_broker_may_have_forgotten_is_sent_again_until_it_has_it() -> None:
    client = FakeClient()
    with socket.create_server(("127.0.0.1", 0)) as broker:
        address = f"127.0.0.1:{broker.getsockname()[1]}"
        settings = KafkaSettings(kafka_bootstrap_servers=address, kafka_resend_seconds=5)
        producer = KafkaProducer(client, "test", settings)
        held, _ = broker.accept()
        for number in range(3):
            producer.send("run.failed.v1", f"run_{number}", models_pb2.RunFailed(), f"evt_{number}")
        client.refusals = 2
        held.close()
        returned, _ = broker.accept()
        deadline = time.monotonic() + 10
        while len(client.keys) < 6 and time.monotonic() < deadline:
            time.sleep(0.02)
        producer.close()
        returned.close()
    assert client.keys == [b"run_0", b"run_1", b"run_2"] * 2


def test_a_producer_closes_though_the_broker_did_not_take_everything() -> None:
    KafkaProducer(FakeClient(), "test", KafkaSettings()).close()
