"""Runs in one chart: what is drawn, what can be read without colours, and who may see it."""

import re

import pytest

from services.console.domain import Role
from services.console.run_curves import MAX_RUNS, read_curve
from services.console.web.charts import choose_steps, overlay, thin
from tests.unit.console.messages import NAME, RUN, progress, run, staged
from tests.unit.console.world import World

OTHER = "run_" + "4" * 32


def make_world() -> World:
    world = World()
    world.training.runs = [run("succeeded"), run(run_id=OTHER, recipe="gentle")]
    world.training.reports = {
        RUN: [progress(step, loss=4.0 - step / 10) for step in range(1, 31)],
        OTHER: [progress(step, loss=5.0 - step / 10) for step in range(1, 21)],
    }
    return world


def compare(world: World, query: str, *runs: str) -> str:
    chosen = "&".join(f"run={run_id}" for run_id in runs or (RUN, OTHER))
    answer = world.signed_in().get(f"/runs/compare?{chosen}&{query}")
    assert answer.status_code == 200, answer.text
    return answer.text


def test_a_worker_that_resumes_replaces_the_steps_that_it_repeats() -> None:
    reports = [progress(2, loss=3.0), progress(4, loss=2.0), progress(4, loss=1.5), progress(3, loss=1.8)]
    assert read_curve(reports, "loss") == ((2, 3.0), (3, 1.8), (4, 1.5))


def test_figures_that_were_not_measured_make_no_points() -> None:
    reports = [progress(0), progress(3, phase="saving"), progress(5), progress(6, phase="verifying", held_out_loss=2.5)]
    assert [step for step, _ in read_curve(reports, "loss")] == [5]
    assert read_curve(reports, "held_out_loss") == ((6, 2.5),)


def test_curves_share_their_axes() -> None:
    chart = overlay([((0, 0.0), (10, 1.0)), ((5, 2.0), (20, 0.0)), ()])
    first, second, empty = chart.lines
    assert empty is None and first and second
    start, end = (re.findall(r"[\d.]+", line.path) for line in (first, second))
    # Both end or begin at the same value, 0, and at their own steps.
    assert start[1] == end[3] and float(start[0]) < float(end[0]) < float(end[2])
    assert [tick.label for tick in chart.across][:2] == ["0", "2.5"] or "5" in [tick.label for tick in chart.across]
    assert all(0 <= tick.at <= chart.height for tick in chart.up)
    assert overlay([(), ()]).lines == (None, None)


def test_one_point_and_equal_values_are_drawn_too() -> None:
    chart = overlay([((7, 1.0),), ((7, 1.0), (9, 1.0))])
    assert all(line and "nan" not in line.path for line in chart.lines)
    assert overlay([((1, float("inf")), (2, 3.0))]).lines[0]


def test_long_curves_are_thinned_and_keep_their_ends() -> None:
    assert thin(range(10_000), 5) == (0, 2500, 5000, 7499, 9999)
    assert choose_steps([[(step, 0.0) for step in range(100)], [(50, 0.0), (60, 0.0)]]) == (50, 60)


def test_the_chart_has_a_curve_a_legend_and_the_values_of_each_run() -> None:
    text = compare(make_world(), "figure=loss")
    assert re.findall(r'<g class="curve curve-(\w)"><path d="M[\d.]+,', text.partition("<table")[0]) == ["a", "b"]
    assert '<svg class="overlay"' in text and 'aria-labelledby="chart-title" aria-describedby="chart-legend"' in text
    # Told apart by letter and by the shape of their marks.
    assert "<circle" in text and "<rect" in text and 'aria-label="Curve B"' in text
    legend = text.partition('id="chart-legend"')[2].partition("</table>")[0]
    assert re.findall(r'<td class="n">([\d.]+)</td>', legend) == [
        "30",
        "3.9",
        "1",
        "3.9",
        "1",
        "20",
        "4.9",
        "3",
        "4.9",
        "3",
    ]
    values = text.partition("<h2>Values")[2]
    assert '<td class="n">20</td><td class="n">2</td><td class="n">3</td>' in values
    assert not re.search(r"\sstyle=|<script(?![^>]* src=)", text)


def test_stages_are_compared_by_method() -> None:
    world = make_world()
    world.training.runs[1] = staged("running", run_id=OTHER)
    world.training.reports[OTHER] = [progress(1, loss=9.0), progress(2, loss=8.0, stage=1, accuracy=0.75)]
    text = compare(world, "method=reward&figure=accuracy", OTHER, RUN)
    assert re.findall(r'<option value="(\w+)"[^>]*>(?:sft|reward|rloo)', text) == ["sft", "reward", "rloo"]
    assert "0.75" in text.partition('id="chart-legend"')[2] and text.count('<td class="n">–</td>') >= 5
    # Without a method, that of the first run's current stage.
    assert '<option value="reward" selected>' in compare(world, "", OTHER, RUN)


def test_a_curve_whose_reports_took_too_long_is_called_cut() -> None:
    world = make_world()
    world.training.slow = {OTHER}
    assert "Curve B is cut" in compare(world, "")


def test_nothing_is_drawn_without_reports_and_without_runs() -> None:
    world = make_world()
    assert "None of these runs reported this figure" in compare(world, "figure=reward")
    assert "Choose runs" in world.signed_in().get("/runs/compare").text


@pytest.mark.parametrize("query", ["figure=nothing", "&".join(f"run=r{number}" for number in range(MAX_RUNS + 1))])
def test_too_many_runs_and_unknown_figures_are_refused(query: str) -> None:
    assert make_world().signed_in().get(f"/runs/compare?{query}").status_code == 400


def test_runs_of_other_specialists_and_unknown_runs_are_not_found() -> None:
    world = make_world()
    world.training.runs[1] = run(run_id=OTHER, specialist="secret-deals")
    browser = world.signed_in(Role.ENGINEER, NAME)
    for run_id in (OTHER, "run_unknown"):
        assert browser.get(f"/runs/compare?run={RUN}&run={run_id}").status_code == 404
    assert f'name="run" value="{RUN}"' in browser.get("/runs").text


def test_the_comparison_names_a_silent_training() -> None:
    world = make_world()
    browser = world.signed_in()
    world.training.down = True
    assert "No answer from training." in browser.get(f"/runs/compare?run={RUN}").text
