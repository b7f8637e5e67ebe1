"""The limits above which a run waits for approval."""

import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from services.training.domain import Job
from services.training.plans import HourLimits, StageSettings, limit_hours
from services.training.recipe import Recipe, load_recipe
from services.training.spec import from_json, to_json
from tests.unit.training.fakes import PLAN, make_run

HOUR = 3600.0
ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("devices", "hours", "gpu", "waits"),
    [(1, 1.9, False, False), (1, 2.1, False, True), (8, 2.9, True, False), (8, 3.1, True, True)],
)
def test_the_limit_counts_device_hours_and_is_another_one_on_gpus(
    devices: int, hours: float, gpu: bool, waits: bool
) -> None:
    plan = replace(PLAN, devices=devices, seconds=hours * HOUR, gpu=gpu)
    assert limit_hours(plan, HourLimits(), 0.0).needs_approval is waits


def test_a_run_of_the_demo_is_far_below_the_limit() -> None:
    sample = tomllib.loads((ROOT / "deploy/sample/specialist.toml").read_text(encoding="utf-8"))
    tokens = sample["rows"]["max_train_tokens"] * load_recipe(sample["recipe"]).limit.epochs
    # 11 per second is the slowest that a busy machine of two cores has had.
    plan = replace(PLAN, devices=1, seconds=tokens / 11)
    assert not limit_hours(plan, HourLimits(), 0.0).needs_approval


def test_a_worker_is_told_the_settings_that_were_planned_for_its_stage() -> None:
    planned = StageSettings("tiny", 3e-4, 2048, 4, gradient_checkpointing=True)
    job = Job(make_run(plan=replace(PLAN, settings=(planned,))), "base")
    ordered = Recipe.model_validate_json(from_json(to_json(job)).recipe_json)
    assert ordered.optimizer.learning_rate == 3e-4
    assert (ordered.batch.tokens, ordered.batch.accumulation, ordered.batch.gradient_checkpointing) == (2048, 4, "on")
    other = replace(job.run, plan=replace(PLAN, settings=(replace(planned, recipe="dpo"),)))
    assert from_json(to_json(replace(job, run=other))).recipe_json == other.current.recipe_json
