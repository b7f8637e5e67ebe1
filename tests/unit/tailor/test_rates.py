"""Rate limits of keys, and the expansion of method names."""

import pytest

from tailor.api.common.v1 import common_pb2
from tailor.errors import InvalidArgument, ResourceExhausted
from tailor.rpc.auth import RateLimiter
from tailor.rpc.methods import named_methods

GENERATE = "tailor.api.inference.v1.InferenceService/Generate"


def test_admits_the_calls_of_a_minute_at_once_and_then_one_per_share_of_the_minute() -> None:
    moment = [0.0]
    rates = RateLimiter(now=lambda: moment[0])
    for _ in range(6):
        rates.take("key_1", 6)
    with pytest.raises(ResourceExhausted) as refused:
        rates.take("key_1", 6)
    assert refused.value.reason == "RATE_EXCEEDED"
    assert refused.value.retry_after_seconds == pytest.approx(10)
    moment[0] = 10.0
    rates.take("key_1", 6)
    with pytest.raises(ResourceExhausted):
        rates.take("key_1", 6)


def test_a_refused_call_takes_no_token_and_other_keys_have_their_own_bucket() -> None:
    moment = [0.0]
    rates = RateLimiter(now=lambda: moment[0])
    rates.take("key_1", 1)
    for second in range(1, 60):
        moment[0] = float(second)
        with pytest.raises(ResourceExhausted):
            rates.take("key_1", 1)
    rates.take("key_2", 1)
    moment[0] = 60.0
    rates.take("key_1", 1)


def test_a_limit_of_zero_means_unlimited() -> None:
    rates = RateLimiter(now=lambda: 0.0)
    for _ in range(1000):
        rates.take("key_1", 0)


def test_expands_a_short_name_to_every_method_of_that_name_that_the_role_may_call() -> None:
    names = named_methods(["ListSpecialists", f"/{GENERATE}"], common_pb2.ROLE_CALLER)
    assert names == (GENERATE, "tailor.api.inference.v1.InferenceService/ListSpecialists")
    assert len(named_methods(["ListSpecialists"], common_pb2.ROLE_ENGINEER)) == 2
    assert named_methods([], common_pb2.ROLE_CALLER) == ()


@pytest.mark.parametrize("name", ["Nothing", "CreateKey", "tailor.api.inference.v1.InferenceService/Score", ""])
def test_refuses_a_method_that_the_role_may_not_call(name: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        named_methods([name], common_pb2.ROLE_CALLER)
    assert set(refused.value.field_violations) == {"methods"}
