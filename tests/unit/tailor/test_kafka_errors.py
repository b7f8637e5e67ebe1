"""Five causes of failure at the broker are five errors, each with the topic and the right that is missing."""

import logging
import threading

import pytest
from kafka.errors import (
    CommitFailedError,
    GroupAuthorizationFailedError,
    KafkaConnectionError,
    KafkaError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    SaslAuthenticationFailedError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
)
from prometheus_client import REGISTRY

from tailor.errors import Reason, TailorError
from tailor.events.availability import RECHECK_SECONDS, Availability
from tailor.events.clients import (
    BrokerLost,
    GroupChanged,
    RightMissing,
    _login_failures,
    broker_errors,
    topic_missing,
    wait_for_broker,
)
from tailor.events.faults import PASSING_SECONDS, REPEAT_SECONDS, Faults
from tailor.settings import KafkaSettings

TOPIC, OTHER = "dataset.built.v1", "run.failed.v1"
SETTINGS = KafkaSettings(kafka_security_protocol="SASL_PLAINTEXT", kafka_sasl_username="training")


@pytest.mark.parametrize(
    ("error", "reason", "names"),
    [
        (MessageSizeTooLargeError(), Reason.EVENT_TOO_LARGE, (TOPIC,)),
        (UnknownTopicOrPartitionError(), Reason.KAFKA_TOPIC_MISSING, (TOPIC,)),
        (TopicAuthorizationFailedError({OTHER}), Reason.KAFKA_RIGHT_MISSING, ("training", "WRITE", OTHER)),
        (TopicAuthorizationFailedError(), Reason.KAFKA_RIGHT_MISSING, ("training", "WRITE", TOPIC)),
        (GroupAuthorizationFailedError(), Reason.KAFKA_RIGHT_MISSING, ("training", "READ on group trainers")),
        (SaslAuthenticationFailedError(), Reason.KAFKA_LOGIN_REFUSED, ("training", "TAILOR_KAFKA_SASL_PASSWORD")),
        (KafkaConnectionError(), Reason.KAFKA_UNAVAILABLE, ("KafkaConnectionError",)),
    ],
)
def test_every_cause_has_its_own_reason_and_names_what_is_missing(
    error: KafkaError, reason: Reason, names: tuple[str, ...]
) -> None:
    with (
        pytest.raises(TailorError) as caught,
        broker_errors(SETTINGS, right="WRITE", topic=TOPIC, group="trainers"),
    ):
        raise error
    assert caught.value.reason == reason
    assert all(name in caught.value.message for name in names)
    assert isinstance(caught.value, BrokerLost) == (reason != Reason.EVENT_TOO_LARGE)


def test_a_lost_broker_is_a_fault_and_a_rebalance_is_none() -> None:
    moment = 0.0
    faults, stop = Faults(lambda: moment), threading.Event()
    stop.set()
    with wait_for_broker(stop, faults, "consumer"), broker_errors(SETTINGS):
        raise CommitFailedError
    assert faults.all() == []
    with wait_for_broker(stop, faults, "consumer"), broker_errors(SETTINGS):
        raise KafkaConnectionError
    moment = PASSING_SECONDS
    assert [(fault.part, fault.reason) for fault in faults.all()] == [("consumer", "KAFKA_UNAVAILABLE")]
    faults.clear("consumer")
    assert faults.all() == []
    with pytest.raises(GroupChanged), broker_errors(SETTINGS):
        raise CommitFailedError


def test_logs_an_unchanged_fault_once_a_minute(capsys: pytest.CaptureFixture[str]) -> None:
    moments = iter([1.0, 2.0, 3.0, REPEAT_SECONDS + 1.0])
    faults = Faults(lambda: next(moments))
    for _ in range(4):
        faults.report("kafka", topic_missing(["document.submitted.v1"]))
    printed = capsys.readouterr()
    assert (printed.out + printed.err).count("document.submitted.v1") == 2


def test_a_connection_that_is_back_within_seconds_was_no_fault(capsys: pytest.CaptureFixture[str]) -> None:
    moment, labels = 0.0, {"part": "passing", "reason": "KAFKA_UNAVAILABLE"}
    faults, lost = Faults(lambda: moment), BrokerLost(Reason.KAFKA_UNAVAILABLE, "The broker is away.")
    faults.report("passing", lost)
    moment = PASSING_SECONDS - 1
    faults.report("passing", lost)
    assert faults.all() == [] and REGISTRY.get_sample_value("tailor_fault", labels) is None
    faults.clear("passing")
    printed = capsys.readouterr()
    assert printed.out + printed.err == ""
    faults.report("passing", lost)
    moment += PASSING_SECONDS
    assert [fault.part for fault in faults.all()] == ["passing"]
    faults.report("passing", lost)
    assert REGISTRY.get_sample_value("tailor_fault", labels) == 1
    faults.clear("passing")
    printed = capsys.readouterr()
    assert "The broker is away." in printed.out + printed.err and "works again" in printed.out + printed.err


CLOSED = KafkaConnectionError("socket disconnected")


@pytest.mark.parametrize(
    ("settings", "errors", "raised"),
    [
        (SETTINGS, [SaslAuthenticationFailedError("no")], SaslAuthenticationFailedError),
        (SETTINGS, [CLOSED, CLOSED, CLOSED], SaslAuthenticationFailedError),
        (SETTINGS, [CLOSED], KafkaTimeoutError),
        (SETTINGS, [KafkaConnectionError("refused")] * 5, KafkaTimeoutError),
        (KafkaSettings(), [CLOSED, CLOSED, CLOSED], KafkaTimeoutError),
    ],
)
def test_a_refused_login_is_told_from_the_timeout_that_kafka_python_makes_of_it(
    settings: KafkaSettings, errors: list[KafkaError], raised: type[KafkaError]
) -> None:
    logger = logging.getLogger("kafka.net.connection")
    with pytest.raises(raised), _login_failures(settings):
        for error in errors:
            logger.error("%s: Connection lost: %s", "node", error)
        raise KafkaTimeoutError


def _refusal(*topics: str) -> RightMissing:
    return RightMissing("You lack READ.", topics)


def test_a_forbidden_topic_holds_up_no_other_and_is_tried_again() -> None:
    moment = 0.0
    faults = Faults()
    available = Availability([TOPIC, OTHER], faults, now=lambda: moment)
    available.refuse(_refusal(TOPIC))
    assert available.readable() == [OTHER]
    available.note([TOPIC, OTHER])
    assert [fault.part for fault in faults.all()] == [f"topic {TOPIC}"]
    assert not available.is_due()
    moment = RECHECK_SECONDS
    assert available.is_due() and available.has_changed([TOPIC, OTHER])
    assert available.readable() == [TOPIC, OTHER]
    available.note([TOPIC, OTHER])
    assert faults.all() == []


def test_a_missing_topic_is_a_fault_until_it_exists() -> None:
    moment = 0.0
    faults = Faults()
    available = Availability([TOPIC, OTHER], faults, now=lambda: moment)
    available.note([TOPIC])
    (fault,) = faults.all()
    assert fault.reason == "KAFKA_TOPIC_MISSING" and OTHER in fault.message
    moment = RECHECK_SECONDS
    assert available.is_due() and not available.has_changed([TOPIC])
    assert not available.is_due()
    moment = 2 * RECHECK_SECONDS
    assert available.is_due() and available.has_changed([TOPIC, OTHER])
    available.note([TOPIC, OTHER])
    assert faults.all() == []


def test_a_topic_that_the_user_may_not_see_is_told_from_a_missing_one() -> None:
    faults = Faults()
    available = Availability([TOPIC, OTHER], faults, lambda absent: {OTHER: _refusal(OTHER)})
    available.note([])
    assert {fault.part: fault.reason for fault in faults.all()} == {
        f"topic {TOPIC}": "KAFKA_TOPIC_MISSING",
        f"topic {OTHER}": "KAFKA_RIGHT_MISSING",
    }


def test_a_refusal_that_leaves_nothing_to_read_is_raised() -> None:
    available = Availability([TOPIC], Faults())
    with pytest.raises(RightMissing):
        available.refuse(_refusal(TOPIC))
    with pytest.raises(RightMissing):
        available.refuse(_refusal())


def test_a_fault_is_a_metric_while_it_lasts_and_a_notice_does_not_wait() -> None:
    faults, labels = Faults(), {"part": "metric", "reason": "KAFKA_TOPIC_MISSING"}
    faults.report("metric", topic_missing([TOPIC]))
    assert REGISTRY.get_sample_value("tailor_fault", labels) == 1
    faults.clear("metric")
    assert REGISTRY.get_sample_value("tailor_fault", labels) is None
    faults.notice("metric", topic_missing([TOPIC]))
    assert [fault.waits for fault in faults.all()] == [False]
