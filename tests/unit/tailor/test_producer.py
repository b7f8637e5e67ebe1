"""Producing events through a fake Kafka client."""

from typing import Any

import pytest
from kafka.errors import KafkaError, KafkaTimeoutError, MessageSizeTooLargeError, NotLeaderForPartitionError

from tailor.api.events.v1 import models_pb2
from tailor.errors import InvalidArgument, Reason, Unavailable
from tailor.events.producer import KafkaProducer


class FakeClient:
    """Takes no record, and cannot flush."""

    def send(self, topic: str, **fields: Any) -> None:
        raise NotLeaderForPartitionError

    def close(self, timeout: float) -> None:
        raise KafkaTimeoutError(timeout)


def test_an_event_that_the_broker_does_not_take_is_unavailable() -> None:
    with pytest.raises(Unavailable):
        KafkaProducer(FakeClient(), "test").send("run.failed.v1", "run_1", models_pb2.RunFailed(), "evt_1")


def test_closes_although_the_broker_did_not_take_everything() -> None:
    KafkaProducer(FakeClient(), "test").close()


class FullClient(FakeClient):
    """Takes no record of this size."""

    def send(self, topic: str, **fields: Any) -> None:
        raise MessageSizeTooLargeError


def test_an_event_that_is_too_large_is_invalid_and_names_its_topic() -> None:
    with pytest.raises(InvalidArgument, match=r"run\.failed\.v1") as caught:
        KafkaProducer(FullClient(), "test").send("run.failed.v1", "run_1", models_pb2.RunFailed(), "evt_1")
    assert caught.value.reason == Reason.EVENT_TOO_LARGE


class DeadClient(FakeClient):
    """Had a fatal error, and sends nothing any more."""

    def send(self, topic: str, **fields: Any) -> None:
        raise KafkaError("Unexpected error in InitProducerIdResponse")

    def close(self, timeout: float) -> None:
        raise KafkaError


class Sent:
    def get(self, seconds: float) -> None:
        del seconds


class GoodClient(FakeClient):
    def send(self, topic: str, **fields: Any) -> Sent:  # type: ignore[override]
        return Sent()


def test_a_client_with_a_fatal_error_is_replaced() -> None:
    opened = [GoodClient(), DeadClient()]
    producer = KafkaProducer(DeadClient(), "test", reopen=opened.pop)
    for _ in range(2):
        with pytest.raises(Unavailable):
            producer.send("run.failed.v1", "run_1", models_pb2.RunFailed(), "evt_1")
    producer.send("run.failed.v1", "run_1", models_pb2.RunFailed(), "evt_1")
    assert opened == []


def test_a_client_that_refused_one_record_stays() -> None:
    producer = KafkaProducer(FullClient(), "test", reopen=lambda: pytest.fail("opened another client"))
    for _ in range(2):
        with pytest.raises(InvalidArgument):
            producer.send("run.failed.v1", "run_1", models_pb2.RunFailed(), "evt_1")
