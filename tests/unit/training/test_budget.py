"""The check of a step against the recipe's budget."""

from typing import Any

import pytest

from services.training.methods.budget import KL, LENGTH, TRUNCATED, BudgetCheck, watch_budget
from services.training.recipe import Recipe
from tailor.errors import InvalidArgument


def recipe(*, masked: bool = True, **budget: Any) -> Recipe:
    settings = {
        "method": "rloo",
        "adapter": {"kind": "lora"},
        "optimizer": {"learning_rate": 1e-4},
        "rewards": [{"kind": "length", "words": 10}],
        "rollout": {"mask_truncated": masked},
        "budget": budget,
    }
    return Recipe.model_validate(settings)


def step(kl: float = 0.0, length: float = 20.0, cut: float = 0.0) -> dict[str, float]:
    return {"loss": 1.0, KL: kl, LENGTH: length, TRUNCATED: cut}


def test_step_beyond_the_divergence_exceeds_the_budget() -> None:
    watch = watch_budget(recipe(max_kl=0.1))
    assert watch([step(0.3), step(0.1)]) == BudgetCheck()
    assert "0.101 nats per token, above budget.max_kl = 0.1" in watch([step(), step(0.101)]).exceeded
    assert watch([step(float("nan"))]).exceeded


def test_without_limits_nothing_is_exceeded() -> None:
    watch = watch_budget(recipe())
    assert watch([step(), *[step(50.0, 900.0)] * 9]) == BudgetCheck()


@pytest.mark.parametrize(("last", "drifts"), [(41.0, True), (40.0, False), (10.0, False), (9.0, True)])
def test_answers_may_become_twice_or_half_as_long(last: float, drifts: bool) -> None:
    log = [*[step(length=20.0)] * 4, *[step(length=last)] * 4]
    warned = watch_budget(recipe(max_length_ratio=2.0))(log)
    assert (bool(warned.warning), warned.exceeded) == (drifts, "")
    stopped = watch_budget(recipe(max_length_ratio=2.0, on_length="stop"))(log)
    assert (bool(stopped.exceeded), stopped.warning) == (drifts, "")


def test_few_steps_and_single_long_answers_are_no_drift() -> None:
    watch = watch_budget(recipe(max_length_ratio=2.0, on_length="stop"))
    assert watch([*[step(length=20.0)] * 3, *[step(length=90.0)] * 4]) == BudgetCheck()
    assert watch([*[step(length=20.0)] * 7, step(length=90.0)]) == BudgetCheck()


def test_step_whose_answers_were_all_cut_says_nothing() -> None:
    watch = watch_budget(recipe(max_kl=0.1))
    assert watch([step(), step(cut=1.0)]) == BudgetCheck(measured=False)
    assert watch([step(), step(0.05, cut=0.9)]) == BudgetCheck()
    assert watch_budget(recipe(masked=False, max_kl=0.1))([step(), step(0.2, cut=1.0)]).exceeded


def test_run_whose_first_answers_were_all_cut_fails() -> None:
    watch = watch_budget(recipe())
    assert watch([step(cut=1.0)] * 3) == BudgetCheck(measured=False)
    with pytest.raises(InvalidArgument) as refused:
        watch([step(cut=1.0)] * 4)
    assert refused.value.reason == "NO_COMPLETE_ANSWER"
    assert "Raise rollout.max_new_tokens" in refused.value.message


def test_lines_of_the_log_without_answers_are_skipped() -> None:
    watch = watch_budget(recipe(max_kl=0.1))
    assert watch([step(0.05), {"train_runtime": 3.0}]) == BudgetCheck()
