"""Producing events through a fake Kafka client."""

from typing import Any

import pytest
from kafka.errors import KafkaTimeoutError, MessageSizeTooLargeError, NotLeaderForPartitionError

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
