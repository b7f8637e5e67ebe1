"""Derived learning rates: the published figures, and what a width, a method and a scale change."""

from typing import Any

import pytest

from services.training.rates import SHARES, choose_rate
from services.training.recipe import GENERATING, Recipe


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
    assert recipe(rate=1e-4).fit_base(4096).optimizer.learning_rate == 1e-4
    for method, share in SHARES.items():
        assert choose_rate(recipe(method), 2048) == pytest.approx(share * choose_rate(recipe(), 2048))
