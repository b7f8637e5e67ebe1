"""Runs: the queue, stages, the plan beside reality, what is streamed and shown."""

import json
import re
from dataclasses import replace
from datetime import timedelta

import pytest

from services.console.domain import Role
from services.console.runs import Compared, LogLine, Price, Run, Watched, compared, queue
from services.console.web.render import amount, percent, size
from services.console.web.runs import run_event
from tests.unit.console.fakes import (
    ADAPTER,
    DATASET,
    DRAFT,
    NAME,
    NOW,
    OLD_ADAPTER,
    PREFERENCES,
    RUN,
    World,
    adapter,
    plan,
    progress,
    report,
    run,
    staged,
)

HOSTILE = '<img src=x onerror="alert(1)">'


def by_name(found: tuple[Compared, ...]) -> dict[str, Compared]:
    return {item.name: item for item in found}


def waiting(name: str, priority: int, minutes: int, specialist: str = NAME) -> Run:
    return replace(
        staged(),
        run_id=f"run_{name}",
        specialist=specialist,
        priority=priority,
        create_time=NOW + timedelta(minutes=minutes),
    )


def test_the_queue_is_by_priority_and_then_by_age() -> None:
    runs = [waiting("young", 0, 5), waiting("old", 0, 1), waiting("first", 7, 9), run("running")]
    assert [item.run_id for item in queue(runs)] == ["run_first", "run_old", "run_young"]


def test_an_ended_run_is_compared_with_its_report() -> None:
    found = by_name(compared(replace(run("succeeded"), report=report()), NOW))
    assert (found["tokens"].forecast, found["tokens"].used, found["tokens"].error) == (39_000, 40_000, -0.025)
    assert (found["memory"].unit, found["memory"].error, found["rows"].error) == ("bytes", 1.0, 0.0)
    assert (found["price"].unit, found["price"].used) == ("EUR", 0.40)
    assert found["price"].error == pytest.approx(-0.125)


def test_a_running_run_shows_what_is_known_so_far() -> None:
    going = replace(run(), progress=replace(progress(40), memory_bytes=5_000))
    found = by_name(compared(going, NOW + timedelta(seconds=180)))
    assert (found["rows"].used, found["tokens"].used, found["memory"].used) == (None, None, 5_000)
    assert (found["steps"].used, found["time"].used) == (40, 180.0)
    # Half of the planned time is half of the planned price of devices; teacher and judgements are paid already.
    assert found["price"].used == pytest.approx(0.30)
    assert {item.error for item in found.values()} == {None}


def test_nothing_is_said_to_be_used_before_a_worker_started_and_nothing_is_compared_without_a_plan() -> None:
    assert {item.used for item in compared(replace(run("queued"), start_time=None), NOW)} == {None}
    assert compared(replace(run(), plan=None), NOW) == ()


def test_steps_of_a_later_stage_are_not_taken_for_those_of_the_run() -> None:
    assert by_name(compared(staged("running"), NOW))["steps"].used is None


def test_stages_are_made_running_or_to_come() -> None:
    assert [staged("running").state_of(number) for number in range(3)] == ["made", "running", "not started"]


def test_figures_are_written_in_their_units() -> None:
    assert [size(value) for value in (12, 2_048, 3 * 2**20, 2**31)] == ["12 B", "2.0 KiB", "3.0 MiB", "2.0 GiB"]
    assert [amount(39_000, "count"), amount(90, "seconds"), amount(1234.5, "EUR")] == [
        "39,000",
        "1.5 min",
        "1,234.50 EUR",
    ]
    assert [percent(0.1), percent(-0.025)] == ["+10 %", "-2 %"]


def test_the_runs_page_shows_the_queue_with_reasons_priorities_and_stages() -> None:
    world = World()
    world.training.items = [
        run(),
        waiting("low", 0, 0),
        waiting("high", 40, 1),
        waiting("other", 90, 2, "secret-deals"),
    ]
    text = world.signed_in(Role.ENGINEER, NAME).get("/runs").text
    places = re.findall(
        r'<tr><td class="n">(\d+)</td><td class="n">(-?\d+)</td><td><a class="id" href="/runs/(\w+)"', text
    )
    # The first place has a run of a specialist that this visitor was not given.
    assert places == [("2", "40", "run_high"), ("3", "0", "run_low")]
    assert "secret-deals" not in text and "run_other" not in text
    assert "Waits for one of 1 places." in text
    assert re.findall(r'<span class="step (\w*)" title="([\w ]+)">(\w+)', text)[:3] == [
        ("done", "made", "sft"),
        ("now", "queued", "reward"),
        ("", "not started", "rloo"),
    ]


def test_there_is_no_queue_where_nothing_waits() -> None:
    assert "The queue" not in World().signed_in().get("/runs").text


def test_a_run_links_its_dataset_parent_adapter_and_stages() -> None:
    world = World()
    world.training.items = [replace(staged("running"), adapter_digest=ADAPTER)]
    text = world.signed_in().get(f"/runs/{RUN}").text
    for link in (
        f"/datasets/{DATASET}",
        f"/datasets/{PREFERENCES}",
        f"/evaluations/{OLD_ADAPTER}",
        f"/evaluations/{ADAPTER}",
    ):
        assert f'href="{link}"' in text
    assert 'aria-current="step"' in text and 'data-methods="sft,reward,rloo"' in text


def test_a_run_shows_its_plan_beside_what_it_used() -> None:
    world = World()
    world.training.items = [replace(run("succeeded"), report=report(), end_time=NOW)]
    text = world.signed_in().get(f"/runs/{RUN}").text
    for part in ("2.0 GiB", "1.0 GiB", "+100 %", "0.35 EUR", "0.40 EUR", "39,000", "40,000", "2 CPU cores"):
        assert part in text
    assert "data-sofar" not in text


def test_a_run_shows_what_it_waits_for() -> None:
    world = World()
    world.training.items = [staged()]
    text = world.signed_in().get(f"/runs/{RUN}").text
    assert '<p class="notice">Waits for one of 1 places. <code>WAITS_FOR_PLACE</code>' in text


def test_figures_that_a_method_does_not_have_are_hidden() -> None:
    world = World()
    world.training.items = [replace(run(), progress=replace(progress(), reward=0.0, kl=None))]
    text = world.signed_in().get(f"/runs/{RUN}").text
    assert '<div class="tile" data-tile="reward"><span>' in text and "0.000" in text
    assert '<div class="tile" data-tile="kl" hidden>' in text
    assert '<section class="card chart-card" data-series="reward" data-height="130" hidden>' in text


def test_the_stream_holds_every_figure_and_the_log() -> None:
    said = replace(progress(), stage=2, reward=0.5, kl=0.01, accuracy=None, memory_bytes=7)
    line = LogLine(NOW, "warning", HOSTILE, 3)
    _, data = run_event(Watched(replace(run(), progress=said, stage=2), (line,)))
    sent = json.loads(json.dumps(data))
    assert (sent["stage"], sent["progress"]["reward"], sent["progress"]["accuracy"]) == (2, 0.5, None)
    assert sent["lines"] == [{"time": "09:30:00", "level": "warning", "message": HOSTILE, "worker": "3"}]


def test_lines_of_a_log_reach_the_browser_in_order() -> None:
    world = World()
    lines = tuple(LogLine(NOW, "info", f"step {number}", 1) for number in (1, 2))
    world.training.reports = [Watched(run(), lines), Watched(run("succeeded"))]
    text = world.signed_in(Role.ENGINEER).get(f"/api/runs/{RUN}/events").text
    assert text.index("step 1") < text.index("step 2")


def test_a_dataset_shows_what_learned_from_it_and_to_nobody_else() -> None:
    world = World()
    world.registry.adapter_items = [adapter(), replace(adapter(OLD_ADAPTER), dataset_digest=PREFERENCES)]
    text = world.signed_in().get(f"/datasets/{DATASET}").text
    assert f"/evaluations/{ADAPTER}" in text and OLD_ADAPTER not in text and "432 to train on" in text
    assert world.signed_in(Role.ENGINEER, "another").get(f"/datasets/{DATASET}").status_code == 404
    assert world.signed_in(Role.EXPERT).get(f"/datasets/{DATASET}").status_code == 403


def test_a_reward_adapter_shows_what_its_run_measured_and_is_never_serving() -> None:
    world = World()
    made = replace(adapter(evaluation=None, metrics={"reward_accuracy": 0.93}), kind="reward")
    world.registry.adapter_items, world.evaluation.answers = [made], {}
    browser = world.signed_in()
    for path in ("/adapters", f"/evaluations/{ADAPTER}"):
        text = browser.get(path).text
        assert "Reward accuracy" in text and "0.930" in text and "never serves" in text


def test_a_draft_shows_the_run_that_made_its_adapter_to_who_may_see_runs() -> None:
    world = World()
    paid = replace(report(), price=Price("EUR", 12.5))
    world.training.items = [replace(run("succeeded"), recipe="rankings", report=paid)]
    assert "12.50 EUR" in world.signed_in(Role.ENGINEER).get(f"/drafts/{DRAFT}").text
    assert "12.50 EUR" not in world.signed_in(Role.EXPERT).get(f"/drafts/{DRAFT}").text
    world.training.down = True
    assert "training could not be asked." in world.signed_in().get(f"/drafts/{DRAFT}").text


def test_a_draft_is_found_by_its_id() -> None:
    browser = World().signed_in(Role.CALLER)
    assert browser.get(f"/drafts?draft_id= {DRAFT} ").headers["location"] == f"/drafts/{DRAFT}"
    assert browser.get("/drafts?draft_id=//evil.example").headers["location"] == "/drafts/%2F%2Fevil.example"


def test_a_plan_that_does_not_fit_names_the_nearest_recipe() -> None:
    world = World()
    refused = replace(plan(), refusal="Needs 9 GiB of 4 GiB.", nearest_recipe="qlora")
    world.training.items = [replace(run("failed"), plan=refused, reason="DOES_NOT_FIT", message=HOSTILE)]
    text = world.signed_in().get(f"/runs/{RUN}").text
    assert "Needs 9 GiB of 4 GiB." in text and "<code>qlora</code>" in text
    assert '<p class="notice bad">&lt;img src=x' in text
