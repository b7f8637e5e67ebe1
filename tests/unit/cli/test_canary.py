"""`tailor canary` against a fake registry."""

import pytest

from tailor.api.events.v1 import models_pb2
from tailor.api.registry.v1 import registry_pb2
from tests.fakes.serving import ADAPTER
from tests.unit.cli.conftest import Services, Tailor


def test_starts_a_canary_on_the_current_generation_with_the_given_limits(tailor: Tailor, services: Services) -> None:
    options = ("--percent", "25", "--max-error-rate-increase", "0", "--wait")
    started = tailor("canary", "start", "engagement-reports", ADAPTER[:8], *options)

    assert started.code == 0
    (request,) = services.registry.canaries
    assert (request.adapter_digest, request.expected_generation, request.policy.percent) == (ADAPTER, 3, 25)
    assert request.policy.HasField("max_error_rate_increase") and request.policy.max_error_rate_increase == 0
    assert (request.policy.min_calls, request.policy.max_seconds, request.policy.max_latency_ratio) == (0, 0, 0)
    assert (request.policy.outcome, request.policy.min_reports, request.policy.max_outcome_loss) == ("", 0, 0)
    assert "25 % of the callers of engagement-reports get" in started.out


def test_leaves_absent_limits_to_the_specialists_policy(tailor: Tailor, services: Services) -> None:
    assert tailor("canary", "start", "engagement-reports", ADAPTER, "--expected-generation", "2").code == 0
    (request,) = services.registry.canaries
    assert (request.policy, request.expected_generation) == (models_pb2.CanaryPolicy(), 2)


@pytest.mark.parametrize("option", [("--percent", "100"), ("--min-calls", "0"), ("--max-latency-ratio", "0.9")])
def test_refuses_impossible_limits(tailor: Tailor, services: Services, option: tuple[str, str]) -> None:
    assert tailor("canary", "start", "engagement-reports", ADAPTER, *option).code == 2
    assert not services.registry.canaries


def test_withdraws_a_canary(tailor: Tailor) -> None:
    assert "NO_CANARY" in tailor("canary", "stop", "engagement-reports").err
    tailor("canary", "start", "engagement-reports", ADAPTER)
    assert "since generation 5" in tailor("canary", "stop", "engagement-reports").out


def test_shows_both_arms_and_the_outcome(tailor: Tailor, services: Services) -> None:
    assert "NO_CANARY_YET" in tailor("canary", "show", "engagement-reports").err
    services.registry.canary = registry_pb2.Canary(
        adapter_digest=ADAPTER,
        generation=4,
        policy=models_pb2.CanaryPolicy(
            percent=10, min_calls=50, max_seconds=600, max_error_rate_increase=0.02, max_latency_ratio=1.5
        ),
        state=registry_pb2.CANARY_STATE_BACK,
        reason="6 of 6 calls failed",
        canary=registry_pb2.CanaryArm(calls=6, errors=6, callers=2),
        incumbent=registry_pb2.CanaryArm(calls=90, callers=18, first_token_seconds=0.25, token_seconds=0.013),
    )

    shown = tailor("canary", "show", "engagement-reports")

    for text in ("on 10 % of the callers since generation 4", "back", "6 of 6 calls failed", "0.250 s", "0.013 s"):
        assert text in shown.out
    assert tailor("canary", "show", "engagement-reports", "--output=json").document["canary"]["errors"] == 6


def test_an_outcome_can_decide(tailor: Tailor, services: Services) -> None:
    options = ("--outcome", "kept_share", "--min-reports", "30", "--max-outcome-loss", "0.05")
    assert tailor("canary", "start", "engagement-reports", ADAPTER, *options).code == 0
    (request,) = services.registry.canaries
    assert (request.policy.outcome, request.policy.min_reports, request.policy.max_outcome_loss) == (
        "kept_share",
        30,
        0.05,
    )
    services.registry.canary = registry_pb2.Canary(
        adapter_digest=ADAPTER,
        policy=request.policy,
        canary=registry_pb2.CanaryArm(reports=31, outcome=0.71),
        incumbent=registry_pb2.CanaryArm(),
    )
    shown = tailor("canary", "show", "engagement-reports").out
    assert "kept share: 0.71 in 31 reports, against no report" in shown and "max loss 0.05" in shown
