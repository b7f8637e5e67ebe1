"""The limits above which a run waits for approval."""

import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from services.training.plans import HourLimits, limit_hours
from services.training.recipe import load_recipe
from tests.unit.training.fakes import PLAN

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
