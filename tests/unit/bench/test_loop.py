"""The bench of two rounds: its experts, its independent agreement, and the bounds that it checks."""

import copy
import math
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import pytest

from bench.loop import TINY, WHOLE, LoopPlan, choose_documents, choose_prompts, copy_recipes
from bench.loop_experts import FIRST_STEP, NOISY, PLAIN, ScriptedDecision, prefer_plain, rewrite, toss
from bench.loop_figures import (
    DOCUMENTS_1,
    DOCUMENTS_2,
    PHASES,
    RANKINGS_1,
    RANKINGS_2,
    LoopFigure,
    describe_phase,
    find_guarded_gain,
    find_noisy_expert,
    list_broken_bounds,
    measure_alpha,
    measure_panel,
    measure_phase,
    render,
)
from bench.preference_set import SUBJECTS
from services.registry.rules.agreement import measure_agreement, nominal
from services.registry.rules.checks import find_gate_violations
from services.registry.rules.expert_queue import find_judging_violations
from services.registry.rules.pipelines import find_pipeline_violations
from services.registry.wire import to_specialist
from services.training.recipe import load_stages
from tailor.api.events.v1 import models_pb2
from tailor.api.registry.v1 import panel_pb2
from tailor.rounds import measure_progress

pytestmark = pytest.mark.release

ESTIMATE = {"value": 0.5, "low": 0.4, "high": 0.6, "rows": 20}
PANEL = {
    "units": 40,
    "alpha": 0.4,
    "low": 0.3,
    "high": 0.5,
    "independent_alpha": 0.4,
    "experts": {NOISY: {"value": 0.1, "low": -0.2, "high": 0.3, "rows": 40}},
    "noisy_expert": NOISY,
    "judgements": 160,
}
PHASE = {
    "pair_accuracy": ESTIMATE,
    "pair_accuracy_gain": None,
    "pair_margin_gain": None,
    "documents_metric": ESTIMATE,
    "documents_gain": {"value": 0.0, "low": -0.05, "high": 0.05, "rows": 20},
    "verdict": "passed",
    "seconds": 60.0,
}
FIGURES: dict[str, Any] = {
    "rounds": 2,
    "phases": dict.fromkeys(PHASES, PHASE),
    "panel": {RANKINGS_1: PANEL, RANKINGS_2: PANEL},
    "noisy_expert_found": True,
    "rollout_ratio": "not measured",
    "base": "tiny",
    "prompts": 80,
    "seconds": 60.0,
    "cores": 2,
    "skipped": {"documents rejected": 1},
    "broken": [],
}


def decide(expert: str, number: int, place: int) -> ScriptedDecision:
    drafts = (f"drf_{number}a", f"drf_{number}b")
    return ScriptedDecision(expert, drafts, drafts[place])


def draw_decisions(seed: int) -> list[ScriptedDecision]:
    """Two experts who agree, one who tosses a coin, and prompts that only one of them saw."""
    chance = Random(seed)
    decisions = []
    for number in range(40):
        place = chance.randrange(2)
        votes = {PLAIN[0]: place, PLAIN[1]: place, NOISY: chance.randrange(2)}
        seen = (*PLAIN, NOISY) if number % 2 else (chance.choice([*votes]),)
        decisions += [decide(expert, number, votes[expert]) for expert in seen]
    return decisions


def measure_as_tailor(decisions: list[ScriptedDecision]) -> float | None:
    units: dict[tuple[str, str], list[float]] = {}
    for item in decisions:
        units.setdefault(item.drafts, []).append(float(item.drafts.index(item.better)))
    return measure_agreement(units.values(), nominal).alpha


def test_shorter_words_are_better_on_either_side() -> None:
    plain, grand = "We call the bank on Monday.", "Stakeholders subsequently communicate financial considerations."
    assert (prefer_plain(plain, grand), prefer_plain(grand, plain)) == (0, 1)
    assert (prefer_plain("", plain), prefer_plain("a b c", "a b")) == (1, 1)


def test_steps_are_better_than_short_words() -> None:
    assert prefer_plain("We call the bank.", "1. Stakeholders communicate. 2. Finance reports by Friday.") == 1


def test_an_edit_is_in_steps_about_the_prompts_subject_and_always_the_same() -> None:
    for prompt in choose_prompts(1, 160):
        edited = rewrite(prompt)
        assert edited.startswith(FIRST_STEP) and edited == rewrite(prompt)
        assert any(subject in prompt and subject in edited for subject in SUBJECTS)


def test_the_noisy_expert_tosses_the_same_coins_for_a_seed() -> None:
    coins = [toss(seed) for seed in (1, 1, 2)]
    first, again, other = ([coin("a", "b") for _ in range(200)] for coin in coins)
    assert first == again != other
    assert 70 < sum(first) < 130


@pytest.mark.parametrize("plan", [WHOLE, TINY])
def test_both_rounds_have_other_documents_and_other_prompts(plan: LoopPlan) -> None:
    first, second = choose_documents(plan.documents)
    assert len(first) == len(second) == plan.documents
    assert len({item.path for item in first + second}) == 2 * plan.documents
    kinds = [Counter(item.path.name.partition("-")[0] for item in half) for half in (first, second)]
    assert set(kinds[0]) == set(kinds[1])
    prompts = choose_prompts(1, 2 * plan.prompts)
    assert len(set(prompts)) == len(prompts) == 2 * plan.prompts
    assert prompts != choose_prompts(2, 2 * plan.prompts)


@pytest.mark.parametrize("plan", [WHOLE, TINY])
def test_a_round_makes_one_dataset_by_itself(plan: LoopPlan) -> None:
    definition = plan.definition
    # The rest of a round's documents after a build is not enough for another one.
    assert plan.documents / 2 < definition.rebuild.min_new_items < plan.documents
    judgements = plan.prompts * (1 + definition.judging.overlap_share * (definition.judging.experts - 1))
    assert definition.rebuild.min_new_items < judgements
    percent = definition.rows.held_out_percent
    expected = measure_progress(
        plan.prompts,
        plan.prompts * percent // 100,
        min_ranked_prompts=definition.rebuild.min_ranked_prompts,
        percent=percent,
    )
    assert not expected.missing


@pytest.mark.parametrize("plan", [WHOLE, TINY])
def test_the_registry_accepts_the_specialist(plan: LoopPlan) -> None:
    specialist = to_specialist(plan.definition)
    assert not find_pipeline_violations(specialist)
    assert not find_gate_violations(specialist)
    assert not find_judging_violations(specialist.judging)


def test_the_tiny_recipes_follow_each_other(tmp_path: Path) -> None:
    definition = TINY.definition
    names = ",".join([definition.recipe, definition.recipes["dpo"]])
    sft, dpo = (stage.recipe for stage in load_stages(names, copy_recipes(tmp_path / "recipes")))
    assert (sft.method, dpo.method) == ("sft", "dpo")
    assert (sft.adapter.r, sft.adapter.alpha) == (dpo.adapter.r, dpo.adapter.alpha)


@pytest.mark.parametrize("seed", range(5))
def test_alpha_by_nltk_is_that_of_the_registry(seed: int) -> None:
    decisions = draw_decisions(seed)
    assert measure_alpha(decisions) == pytest.approx(measure_as_tailor(decisions), abs=1e-12)


def test_alpha_by_nltk_differs_if_a_single_vote_does() -> None:
    decisions = draw_decisions(1)
    changed = [decide(item.expert, 1, 1 - item.drafts.index(item.better)) if item.drafts[0] == "drf_1a" and item.expert == NOISY
               else item for item in decisions]  # fmt: skip
    assert measure_alpha(changed) != pytest.approx(measure_alpha(decisions), abs=1e-6)


def test_decisions_that_nobody_shares_have_no_alpha() -> None:
    alpha = measure_alpha([decide(PLAIN[0], 1, 0), decide(PLAIN[1], 2, 0)])
    assert math.isnan(alpha)


def test_the_noisy_expert_is_who_certainly_agrees_least() -> None:
    experts = {
        "a": LoopFigure(1.0, 1.0, 1.0, 30),
        "b": LoopFigure(1.0, 0.9, 1.0, 30),
        "c": LoopFigure(0.1, -0.2, 0.4, 40),
    }
    assert find_noisy_expert(experts) == "c"
    assert not find_noisy_expert(experts | {"b": LoopFigure(0.6, 0.3, 0.9, 30)})
    assert not find_noisy_expert({"a": experts["a"]})
    assert not find_noisy_expert({})


def test_the_panel_names_experts_by_their_ids() -> None:
    def item(expert_id: str, alpha: float) -> panel_pb2.CriterionAgreement:
        return panel_pb2.CriterionAgreement(
            criterion="ranking", expert_id=expert_id, units=30, alpha=alpha, low=alpha - 0.1, high=alpha
        )

    response = panel_pb2.GetAgreementResponse(
        agreement=[item("", 0.4), item("exp_1", 1.0), item("exp_2", 1.0), item("exp_3", 0.0),
                   panel_pb2.CriterionAgreement(criterion="style")],
        judgements=160,
    )  # fmt: skip
    names = {"exp_1": PLAIN[0], "exp_2": PLAIN[1], "exp_3": NOISY}
    panel = measure_panel(response, names, draw_decisions(1))
    assert (panel.noisy_expert, panel.judgements, panel.units) == (NOISY, 160, 30)
    assert panel.alpha == pytest.approx(0.4) and panel.independent_alpha == measure_alpha(draw_decisions(1))


def make_evaluation(incumbent: str) -> models_pb2.AdapterEvaluated:
    estimate = models_pb2.Estimate(value=0.75, low=0.6, high=0.9, rows=20)
    gains = {
        "base": models_pb2.Estimate(value=0.3, low=0.2, high=0.4, rows=20),
        "incumbent": models_pb2.Estimate(value=-0.02, low=-0.04, high=0.0, rows=20),
    }
    metrics = [
        models_pb2.MetricFigures(metric=name, models={"candidate": estimate}, gains=gains)
        for name in ("win_rate", "pair_margin", "log_likelihood")
    ]
    return models_pb2.AdapterEvaluated(
        adapter_digest="a1", incumbent_digest=incumbent, metrics=metrics, rows=40, pairs=20, held_out_rows=60
    )


def test_documents_are_guarded_over_what_serves_or_else_over_the_base() -> None:
    over_incumbent, over_base = (find_guarded_gain(make_evaluation(incumbent)) for incumbent in ("b2", ""))
    assert over_incumbent and over_incumbent.value == pytest.approx(-0.02)
    assert over_base and over_base.value == pytest.approx(0.3)


def test_a_phase_has_what_its_evaluation_measured() -> None:
    figures = measure_phase(make_evaluation("b2"))
    assert figures["pair_accuracy"] == {"value": 0.75, "low": 0.6, "high": 0.9, "rows": 20}
    assert figures["pair_accuracy_base"] is None
    assert figures["pair_margin_gain"] == {"value": -0.02, "low": -0.04, "high": 0.0, "rows": 20}
    assert (figures["rows"], figures["pairs"], figures["held_out_rows"]) == (40, 20, 60)


def test_figures_within_all_bounds_break_none() -> None:
    assert not list(list_broken_bounds(FIGURES, NOISY))


@pytest.mark.parametrize(
    ("path", "value", "name"),
    [
        (("rounds",), 1, "rounds"),
        (("phases", DOCUMENTS_2, "pair_accuracy", "value"), 0.45, "pair_accuracy"),
        (("phases", DOCUMENTS_2, "pair_accuracy"), None, "pair_accuracy"),
        (("phases", RANKINGS_1, "documents_gain", "low"), -0.11, "documents_metric"),
        (("phases", RANKINGS_2, "documents_gain"), None, "documents_metric"),
        (("phases", RANKINGS_2, "documents_gain", "low"), float("nan"), "documents_metric"),
        (("panel", RANKINGS_1, "independent_alpha"), 0.4001, "alpha"),
        (("panel", RANKINGS_2, "alpha"), float("nan"), "alpha"),
        (("noisy_expert_found",), False, "noisy_expert_found"),
    ],
)
def test_a_bound_that_does_not_hold_is_named(path: tuple[str, ...], value: object, name: str) -> None:
    figures = json_copy(FIGURES)
    place = figures
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    (sentence,) = list_broken_bounds(figures, NOISY)
    assert sentence.startswith(name)


def test_the_page_shows_every_phase_and_what_was_skipped() -> None:
    page = render(FIGURES)
    assert all(f"| {name} | passed |" in page for name in (DOCUMENTS_1, RANKINGS_1, DOCUMENTS_2, RANKINGS_2))
    assert "`rollout_ratio` not measured" in page
    assert "Left out: 1 documents rejected." in page
    assert "Bounds that did not hold: none." in page


def json_copy(figures: dict[str, Any]) -> dict[str, Any]:
    """A copy in which no two phases share a part."""
    return {name: json_copy(value) if isinstance(value, dict) else copy.copy(value) for name, value in figures.items()}


def test_a_phase_is_described_by_what_the_bounds_are_about() -> None:
    phase = PHASE | {"datasets": {"sft": {"train_rows": 40}, "preference": {"train_rows": 94}}}
    assert describe_phase(phase) == (
        "pair_accuracy 0.500 (0.400 to 0.600, 20), documents gain 0.000 (-0.050 to 0.050, 20), rows to train on: 40 sft, 94 preference"
    )
