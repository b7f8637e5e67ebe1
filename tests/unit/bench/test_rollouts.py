"""Figures of the comparison of rollouts, by the engine and by `generate`."""

import pytest

from bench.rollouts import Turn, figures_of, name_processor

pytestmark = pytest.mark.release


def turn(tokens: int, cpu_seconds: float) -> Turn:
    return Turn(tokens, tokens, seconds=cpu_seconds / 2, cpu_seconds=cpu_seconds, scoring=cpu_seconds, reward=0.5)


def test_the_ratio_is_that_of_all_tokens_and_all_seconds() -> None:
    engine = [turn(100, 1.0), turn(120, 1.0), turn(80, 1.0)]
    generate = [turn(50, 1.0), turn(40, 2.0), turn(60, 2.0)]
    figures = figures_of({"engine": engine, "generate": generate})
    for name in ("rollout_ratio", "rollout_ratio_seconds", "rollout_ratio_with_rewards"):
        assert figures[name] == pytest.approx(100 / 30)
    # Three times the best or the worst round is among the resamples.
    assert figures["rollout_ratio_interval"] == pytest.approx([2.0, 6.0])
    assert figures["rounds"] == 3


def test_equal_rounds_have_no_interval() -> None:
    figures = figures_of({"engine": [turn(90, 1.0)] * 4, "generate": [turn(30, 1.0)] * 4})
    assert figures["rollout_ratio_interval"] == pytest.approx([3.0, 3.0])


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"cpu_name": "Intel Xeon", "amx_bf16": True, "avx512_bf16": True}, "Intel Xeon with AMX"),
        ({"cpu_name": "AMD EPYC", "avx512_bf16": True}, "AMD EPYC with AVX-512 for bf16, without AMX"),
        ({"architecture": "x86_64"}, "x86_64 without bf16"),
        ({}, "unknown without bf16"),
    ],
)
def test_the_processor_is_named_with_its_way_of_multiplying(capabilities: dict[str, object], expected: str) -> None:
    assert name_processor(capabilities) == expected
