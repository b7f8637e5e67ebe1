"""Runs: the queue, stages, plan and actual, live updates and pages."""

import json
import re
from datetime import timedelta

import pytest

from services.console.domain import Role
from services.console.rules import Figure, compare_plan, sort_queue, stage_state
from services.console.web.render import amount, percent, size
from services.console.web.runs import run_event
from tailor.api.events.v1 import models_pb2
from tailor.api.training.v1 import training_pb2
from tests.unit.console.messages import (
    ADAPTER,
    DATASET,
    DRAFT,
    NAME,
    NOW,
    OLD_ADAPTER,
    PREFERENCES,
    RUN,
    STAMP,
    adapter,
    later,
    log_line,
    plan,
    progress,
    report,
    run,
    staged,
    trained,
    update,
)
from tests.unit.console.world import World

HOSTILE = '<img src=x onerror="alert(1)">'


def compare(run: training_pb2.Run, seconds: float = 0) -> dict[str, Figure]:
    return {figure.name: figure for figure in compare_plan(run, NOW + timedelta(seconds=seconds))}


def waiting(name: str, priority: int, minutes: int, specialist: str = NAME) -> training_pb2.Run:
    return staged(run_id=f"run_{name}", specialist=specialist, priority=priority, create_time=later(minutes))


def test_the_queue_is_sorted_by_priority_then_age() -> None:
    runs = [waiting("young", 0, 5), waiting("old", 0, 1), waiting("first", 7, 9), run("running")]
    assert [item.run_id for item in sort_queue(runs)] == ["run_first", "run_old", "run_young"]


def test_an_ended_run_is_compared_with_its_report() -> None:
    figures = compare(run("succeeded", report=report()))
    assert (figures["tokens"].forecast, figures["tokens"].used, figures["tokens"].error) == (39_000, 40_000, -0.025)
    assert (figures["memory"].unit, figures["memory"].error, figures["rows"].error) == ("bytes", 1.0, 0.0)
    assert (figures["price"].unit, figures["price"].used) == ("EUR", 0.40)
    assert figures["price"].error == pytest.approx(-0.125)


def test_rows_that_are_too_long_are_shown_if_there_are_any() -> None:
    figures = compare(run("succeeded", plan=plan(rows_skipped=4), report=report(rows_skipped=5)))
    assert (figures["rows left out"].forecast, figures["rows left out"].used) == (4, 5)
    assert "rows left out" not in compare(run("succeeded", report=report()))


def test_a_running_run_shows_what_is_known_so_far() -> None:
    figures = compare(run(progress=progress(40, memory_bytes=5_000)), seconds=180)
    assert (figures["rows"].used, figures["tokens"].used, figures["memory"].used) == (None, None, 5_000)
    assert (figures["steps"].used, figures["time"].used) == (40, 180.0)
    # After half of the planned time, half of the device price is spent; teacher and judgements are already paid.
    assert figures["price"].used == pytest.approx(0.30)
    assert {item.error for item in figures.values()} == {None}


def test_nothing_is_used_before_a_worker_starts_and_nothing_is_compared_without_a_plan() -> None:
    assert {figure.used for figure in compare(run("queued", start_time=None)).values()} == {None}
    assert compare(run(plan=None)) == {}


def test_steps_of_a_later_stage_are_not_counted_as_steps_of_the_run() -> None:
    assert compare(staged("running"))["steps"].used is None


def test_stages_are_done_running_or_not_started() -> None:
    assert [stage_state(staged("running"), index) for index in range(3)] == ["done", "running", "not started"]


def test_figures_are_formatted_in_their_units() -> None:
    assert [size(value) for value in (12, 2_048, 3 * 2**20, 2**31)] == ["12 B", "2.0 KiB", "3.0 MiB", "2.0 GiB"]
    assert [amount(39_000, "count"), amount(90, "seconds"), amount(1234.5, "EUR")] == [
        "39,000",
        "1.5 min",
        "1,234.50 EUR",
    ]
    assert [percent(0.1), percent(-0.025)] == ["+10 %", "-2 %"]


def test_the_runs_page_shows_the_queue_with_reasons_priorities_and_stages() -> None:
    world = World()
    world.training.runs = [run(), waiting("low", 0, 0), waiting("high", 40, 1), waiting("other", 90, 2, "secret-deals")]
    text = world.signed_in(Role.ENGINEER, NAME).get("/runs").text
    places = re.findall(
        r'<tr><td class="n">(\d+)</td><td class="n">(-?\d+)</td><td><a class="id" href="/runs/(\w+)"', text
    )
    # The run in first place belongs to a specialist that this visitor may not see.
    assert places == [("2", "40", "run_high"), ("3", "0", "run_low")]
    assert "secret-deals" not in text and "run_other" not in text
    assert "Waits for one of 1 places." in text
    assert re.findall(r'<span class="step (\w*)" title="([\w ]+)">(\w+)', text)[:3] == [
        ("done", "done", "sft"),
        ("now", "queued", "reward"),
        ("", "not started", "rloo"),
    ]


def test_the_page_of_bases_shows_what_was_found_of_each() -> None:
    text = World().signed_in(Role.ENGINEER, NAME).get("/bases").text
    shown = dict(re.findall(r"<dt>([^<]+)</dt><dd[^>]*>([^<]+)<", text))
    assert "<h2>qwen3</h2>" in text and (shown["Rows"], shown["Thinks"], shown["Largest rank"]) == (
        "one by one",
        "yes",
        "256",
    )
    assert (shown["Adapted layers"], shown["Adapters are served"]) == ("q_proj, v_proj", "yes")


def test_there_is_no_queue_if_no_run_waits() -> None:
    assert ">Queue <" not in World().signed_in().get("/runs").text


def test_a_run_links_its_dataset_parent_adapter_and_stages() -> None:
    world = World()
    world.training.runs = [staged("running", adapter_digest=ADAPTER)]
    text = world.signed_in().get(f"/runs/{RUN}").text
    for link in (
        f"/datasets/{DATASET}",
        f"/datasets/{PREFERENCES}",
        f"/evaluations/{OLD_ADAPTER}",
        f"/evaluations/{ADAPTER}",
    ):
        assert f'href="{link}"' in text
    assert 'aria-current="step"' in text and 'data-methods="sft,reward,rloo"' in text


def test_a_run_shows_its_plan_and_what_it_used() -> None:
    world = World()
    world.training.runs = [run("succeeded", report=report(), end_time=STAMP)]
    text = world.signed_in().get(f"/runs/{RUN}").text
    for part in ("2.0 GiB", "1.0 GiB", "+100 %", "0.35 EUR", "0.40 EUR", "39,000", "40,000", "2 CPU cores"):
        assert part in text
    assert "data-sofar" not in text


def test_a_run_shows_what_it_waits_for() -> None:
    world = World()
    world.training.runs = [staged()]
    text = world.signed_in().get(f"/runs/{RUN}").text
    assert '<p class="notice">Waits for one of 1 places. <code>WAITS_FOR_PLACE</code>' in text


def test_figures_that_a_method_does_not_have_are_hidden() -> None:
    world = World()
    world.training.runs = [run(progress=progress(reward=0.0))]
    text = world.signed_in().get(f"/runs/{RUN}").text
    assert '<div class="tile" data-tile="reward"><span>' in text and "0.000" in text
    assert '<div class="tile" data-tile="kl" hidden>' in text
    assert '<section class="card chart-card" data-series="reward" data-height="130" hidden>' in text


def test_live_updates_contain_every_figure_and_the_log() -> None:
    figures = progress(stage=2, reward=0.5, kl=0.01, memory_bytes=7)
    _, data = run_event(update(run(progress=figures, stage=2), log_line(HOSTILE, "warning", epoch=3)))
    sent = json.loads(json.dumps(data))
    assert (sent["stage"], sent["progress"]["reward"], sent["progress"]["accuracy"]) == (2, 0.5, None)
    assert sent["lines"] == [{"time": "09:30:00", "level": "warning", "message": HOSTILE, "worker": "3"}]


def test_log_lines_reach_the_browser_in_order() -> None:
    world = World()
    world.training.updates = [update(run(), log_line("step 1"), log_line("step 2")), update(run("succeeded"))]
    text = world.signed_in(Role.ENGINEER).get(f"/api/runs/{RUN}/events").text
    assert text.index("step 1") < text.index("step 2")


def test_a_dataset_shows_its_adapters_to_permitted_visitors_only() -> None:
    world = World()
    world.registry.adapters = [adapter(), adapter(trained(OLD_ADAPTER, dataset_digest=PREFERENCES))]
    text = world.signed_in().get(f"/datasets/{DATASET}").text
    assert f"/evaluations/{ADAPTER}" in text and OLD_ADAPTER not in text and "432 for training" in text
    assert world.signed_in(Role.ENGINEER, "another").get(f"/datasets/{DATASET}").status_code == 404
    assert world.signed_in(Role.EXPERT).get(f"/datasets/{DATASET}").status_code == 403


def test_a_reward_adapter_shows_its_metrics_and_never_serves() -> None:
    world = World()
    weights = trained(kind=models_pb2.ADAPTER_KIND_REWARD, metrics={"reward_accuracy": 0.93})
    world.registry.adapters, world.evaluation.answers = [adapter(weights, evaluation=None)], {}
    browser = world.signed_in()
    for path in ("/adapters", f"/evaluations/{ADAPTER}"):
        text = browser.get(path).text
        assert "Reward accuracy" in text and "0.930" in text and "never serves" in text


def test_a_draft_shows_the_run_of_its_adapter_to_permitted_roles() -> None:
    world = World()
    paid = report(price=training_pb2.Price(currency="EUR", total=12.5))
    world.training.runs = [run("succeeded", recipe="rankings", report=paid)]
    assert "12.50 EUR" in world.signed_in(Role.ENGINEER).get(f"/drafts/{DRAFT}").text
    assert "12.50 EUR" not in world.signed_in(Role.EXPERT).get(f"/drafts/{DRAFT}").text
    world.training.down = True
    assert "No answer from training." in world.signed_in().get(f"/drafts/{DRAFT}").text


def test_a_draft_is_found_by_its_id() -> None:
    browser = World().signed_in(Role.CALLER)
    assert browser.get(f"/drafts?draft_id= {DRAFT} ").headers["location"] == f"/drafts/{DRAFT}"
    assert browser.get("/drafts?draft_id=//evil.example").headers["location"] == "/drafts/%2F%2Fevil.example"


def test_a_plan_that_does_not_fit_names_the_nearest_recipe() -> None:
    world = World()
    refused = plan(refusal="Needs 9 GiB of 4 GiB.", nearest_recipe="qlora")
    world.training.runs = [run("failed", plan=refused, reason="DOES_NOT_FIT", message=HOSTILE)]
    text = world.signed_in().get(f"/runs/{RUN}").text
    assert "Needs 9 GiB of 4 GiB." in text and "<code>qlora</code>" in text
    assert '<p class="notice bad">&lt;img src=x' in text
