"""Derived learning rates and sizes of steps: the published figures, and what a base, a method, a scale and a device change."""

from typing import Any

import pytest

from services.training.rates import SHARES, choose_rate, fit_base, list_steps, step_tokens
from services.training.recipe import GENERATING, LimitRecipe, Recipe


def recipe(method: str = "sft", rate: float = 0.0, **adapter: Any) -> Recipe:
    settings: dict[str, Any] = {
        "method": method,
        "adapter": {"kind": "lora", "r": 16, "alpha": 32, **adapter},
        "optimizer": {"learning_rate": rate},
    }
    if adapter.get("kind") == "none":
        settings["precision"] = "mixed"
    if method in GENERATING:
        settings["rewards"] = [{"kind": "length", "words": 9}]
    if method == "sweep":
        settings["sweep"] = {"factors": [0.5, 1.0]}
    return Recipe.model_validate(settings)


def test_a_rate_for_8b_is_the_published_one() -> None:
    assert choose_rate(recipe(), 4096) == pytest.approx(2.86e-4, rel=0.01)


def test_a_family_has_its_own_slope_and_an_unknown_one_that_of_llama() -> None:
    assert choose_rate(recipe(), 4096, "qwen3_moe") == pytest.approx(4.73e-4, rel=0.01)
    assert choose_rate(recipe(), 4096, "gemma3_text") == choose_rate(recipe(), 4096, "llama")


def test_steps_follow_the_device_and_the_data() -> None:
    assert step_tokens(recipe(), gpu=False) == 512
    assert [step_tokens(recipe(method), gpu=False) for method in ("dpo", "rloo")] == [1024, 1024]
    assert step_tokens(recipe(), gpu=True, trained_tokens=10_000_000) == 16_384
    # At least a hundred steps.
    assert step_tokens(recipe(), gpu=True, trained_tokens=500_000) == 4096
    assert step_tokens(recipe(), gpu=True, trained_tokens=10_000) == 1024


def test_steps_are_split_and_then_recomputed_until_they_fit() -> None:
    ways = [way.batch for way in list_steps(recipe(), gpu=True)]
    assert [(way.tokens, way.accumulation) for way in ways[:5]] == [(16_384 // part, part) for part in (1, 2, 4, 8, 16)]
    assert [way.gradient_checkpointing for way in ways] == ["off"] * 5 + ["on"] * 5
    short = recipe().model_copy(update={"limit": LimitRecipe(max_tokens=300)})
    assert list_steps(short, gpu=False)[0].batch.tokens == 300
    named = list_steps(recipe().with_steps(2048, 3, checkpointing=False), gpu=True)
    assert [(way.batch.tokens, way.batch.accumulation) for way in named] == [(2048, 3)]


def test_wider_bases_and_all_weights_take_lower_rates() -> None:
    rates = [choose_rate(recipe(), width) for width in (576, 960, 2048, 4096, 8192)]
    assert rates == sorted(rates, reverse=True) and rates[0] < 2e-3
    assert choose_rate(recipe(kind="none"), 4096) == pytest.approx(choose_rate(recipe(), 4096) / 10)


def test_a_larger_scale_takes_a_lower_rate_and_a_rank_changes_nothing() -> None:
    plain = choose_rate(recipe(), 2048)
    assert choose_rate(recipe(r=64), 2048) == choose_rate(recipe(r=8), 2048) == plain
    assert choose_rate(recipe(alpha=64), 2048) == pytest.approx(plain / 2)
    assert choose_rate(recipe(use_rslora=True), 2048) == pytest.approx(plain / 4)


def test_a_named_rate_stays_and_every_method_has_a_share() -> None:
    assert fit_base(recipe(rate=1e-4), 4096, "llama").optimizer.learning_rate == 1e-4
    for method, share in SHARES.items():
        assert choose_rate(recipe(method), 2048) == pytest.approx(share * choose_rate(recipe(), 2048))
