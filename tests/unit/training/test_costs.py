"""The cost that training's events carry."""

from dataclasses import replace
from datetime import timedelta

import pytest

from services.training import wire
from services.training.domain import Progress, Run, RunState
from services.training.plans import Price
from tailor.api.events.v1 import models_pb2
from tests.unit.training.fakes import PLAN, START, make_run, trained


def planned_run(hourly: float) -> Run:
    plan = replace(PLAN, price=Price("EUR", compute=hourly * PLAN.seconds / 3600))
    heard = {"heard_since": START, "heard_last": START + timedelta(seconds=1800)}
    return make_run(plan=plan, worked_seconds=1800.0, **heard)


def test_events_of_a_run_carry_its_device_time_and_price() -> None:
    run = planned_run(hourly=4.0)
    failed = replace(run, state=RunState.FAILED, end_time=START)
    progress = Progress("training", 1, 8, 1.0, message=b"")
    costs = [
        wire.from_progress(run, progress).cost,
        wire.from_failure(failed).cost,
        wire.from_trained(run, replace(trained(), message=b""), START).cost,
    ]
    for cost in costs:
        assert (cost.device_seconds, cost.device, cost.currency) == (7200.0, "2 CPU cores", "EUR")
        assert cost.amount == pytest.approx(4.0)


def test_without_a_price_a_run_has_no_amount_and_before_its_plan_no_cost() -> None:
    run = planned_run(hourly=0.0)
    cost = wire.from_cost(run)
    assert cost is not None and not cost.HasField("amount") and cost.currency == ""
    assert wire.from_cost(replace(run, plan=None)) is None


def test_a_worker_cannot_say_what_its_run_costs() -> None:
    forged = models_pb2.RunProgressed(
        cost=models_pb2.RunCost(device_seconds=1e9, amount=1e9, device="x", currency="USD")
    )
    progress = Progress("training", 1, 8, 1.0, message=forged.SerializeToString())
    run = planned_run(hourly=0.0)
    assert wire.from_progress(run, progress).cost == wire.from_cost(run)
    assert not wire.from_progress(replace(run, plan=None), progress).HasField("cost")
