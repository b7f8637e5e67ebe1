"""Sending again what a lost broker may have forgotten; the broker is a socket."""

import socket
from collections.abc import Callable
from typing import Any

import pytest
from kafka.errors import KafkaConnectionError, KafkaError, NotLeaderForPartitionError

from tailor.local.noida_workarounds import IdleConnection, NoidaConsumer, NoidaProducer
from tests.waiting import wait_until


class Acknowledged:
    """A future that has succeeded."""

    def add_callback(self, callback: Callable[[None], None]) -> None:
        callback(None)

    def get(self, timeout: float) -> None:
        del timeout


class FakeClient:
    """Records the keys that were sent; refuses the next `refusals` records."""

    def __init__(self) -> None:
        self.arguments: dict[str, Any] = {}
        self.refusals = 0
        self.keys: list[bytes] = []

    def connect(self, **arguments: Any) -> "FakeClient":
        self.arguments = arguments
        return self

    def send(self, topic: str, key: bytes) -> Acknowledged:
        del topic
        if self.refusals:
            self.refusals -= 1
            raise NotLeaderForPartitionError
        self.keys.append(key)
        return Acknowledged()

    def close(self, timeout: float) -> None:
        del timeout


def address(broker: socket.socket) -> list[str]:
    return [f"127.0.0.1:{broker.getsockname()[1]}"]


def test_resends_acknowledged_records_until_the_returned_broker_takes_them() -> None:
    client = FakeClient()
    with socket.create_server(("127.0.0.1", 0)) as broker:
        producer = NoidaProducer(client.connect, bootstrap_servers=address(broker), enable_idempotence=True)
        held, _ = broker.accept()
        for number in range(3):
            producer.send("run.failed.v1", key=b"run_%d" % number)
        client.refusals = 2
        held.close()
        returned, _ = broker.accept()
        wait_until(lambda: len(client.keys) >= 6)
        producer.close(timeout=60)
        returned.close()
    assert client.keys == [b"run_0", b"run_1", b"run_2"] * 2


def test_numbers_no_records_because_the_broker_forgets_the_numbers() -> None:
    client = FakeClient()
    NoidaProducer(client.connect, bootstrap_servers=["127.0.0.1:1"], enable_idempotence=True).close(timeout=60)
    assert not client.arguments["enable_idempotence"]


def test_notices_a_lost_broker_although_it_is_back() -> None:
    with socket.create_server(("127.0.0.1", 0)) as broker:
        connection = IdleConnection(address(broker))
        accepted, _ = broker.accept()
        assert not connection.is_broken()
        assert not connection.is_broken(wait_seconds=0.05)
        accepted.close()
        assert connection.is_broken(wait_seconds=60.0)
        connection.close()


def test_a_consumer_without_a_broker_fails_like_kafkas_own() -> None:
    with pytest.raises(KafkaConnectionError) as raised:
        NoidaConsumer(bootstrap_servers=["127.0.0.1:1"])
    assert isinstance(raised.value, KafkaError)
