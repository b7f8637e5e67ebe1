"""The gate's verdicts: a condition counts only if its whole interval is on one side."""

import math
from dataclasses import replace

import pytest

from services.registry.domain import Decision, Evaluation, Gate, GuardMetric, Interval, MetricIntervals, PrimaryMetric
from services.registry.rules.gate import decide
from services.registry.rules.sample_size import count_needed_rows, say_what_decides

GATE = Gate(
    PrimaryMetric("log_likelihood", 0.05, 0.0),
    (GuardMetric("rougeL", 0.02),),
    beat=("base",),
    min_rows=20,
    max_parity=0.1,
)


def gain(value: float, half: float, rows: int = 24) -> Interval:
    return Interval(value, value - half, value + half, rows)


def value(number: float) -> MetricIntervals:
    return MetricIntervals("", {"candidate": Interval(number, number, number, 1)})


def figures(metric: str, **gains: Interval) -> MetricIntervals:
    return MetricIntervals(metric, {}, gains)


def evaluation(**changes: object) -> Evaluation:
    passed = Evaluation(
        "evl_1",
        "ad1",
        "reports",
        24,
        metrics={
            "log_likelihood": figures("log_likelihood", base=gain(0.3, 0.1), incumbent=gain(0.1, 0.05)),
            "rougeL": figures("rougeL", base=gain(0.0, 0.01), incumbent=gain(0.0, 0.01)),
        },
        suites={"parity": value(0.01)},
        incumbent_generation=1,
        held_out_rows=30,
    )
    return replace(passed, **changes)  # type: ignore[arg-type]


def with_gain(metric: str, **gains: Interval) -> Evaluation:
    known = evaluation()
    return replace(known, metrics={**known.metrics, metric: figures(metric, **gains)})


def test_passes_if_every_interval_is_on_the_right_side() -> None:
    verdict = decide(GATE, evaluation(incumbent_digest="ad0"))
    assert verdict.decision is Decision.PASSED
    assert "log_likelihood gains +0.300 (95 %: +0.200 to +0.400, 24 rows) over base" in verdict.reasons


def test_refuses_a_gain_that_is_certainly_too_small() -> None:
    verdict = decide(GATE, with_gain("log_likelihood", base=gain(0.01, 0.03)))
    assert verdict.decision is Decision.REFUSED
    assert "more than 0.05. Train on more or better rows" in verdict.reasons[0]


def test_is_undecided_where_the_interval_holds_the_limit_and_says_how_many_rows_would_decide() -> None:
    verdict = decide(GATE, with_gain("log_likelihood", base=gain(0.09, 0.07)))
    assert verdict.decision is Decision.UNDECIDED
    assert "with 24 rows a difference below 0.070 cannot be seen; about 75 rows would decide" in verdict.reasons[0]
    assert "but the dataset holds out 30. Publish more documents" in verdict.reasons[0]
    assert (
        "a higher `rows.held_out_percent` holds out more of the new ones. Raise `rows.max_held_out_rows`"
        in verdict.reasons[0]
    )


def test_names_the_setting_if_the_dataset_has_the_rows() -> None:
    undecided = replace(with_gain("log_likelihood", base=gain(0.09, 0.07)), held_out_rows=200)
    assert "Raise `evaluation.max_rows`" in decide(GATE, undecided).reasons[0]
    guarded = replace(with_gain("rougeL", base=gain(0.0, 0.05)), held_out_rows=200, rows=150)
    assert "Raise `evaluation.max_answers`" in decide(GATE, guarded).reasons[0]


def test_a_metric_of_scores_is_not_helped_by_more_answers_although_pairs_were_evaluated_too() -> None:
    with_pairs = replace(with_gain("log_likelihood", base=gain(0.09, 0.07)), held_out_rows=200, rows=150)
    assert "Raise `evaluation.max_rows`" in decide(GATE, with_pairs).reasons[0]


def test_rows_that_would_decide_are_compared_with_those_of_their_kind() -> None:
    of_documents = replace(
        with_gain("log_likelihood", base=gain(0.09, 0.07)), held_out_rows=70, rows=40, held_out_pairs=46
    )
    assert "but the dataset holds out 24. Publish more documents" in decide(GATE, of_documents).reasons[0]
    of_pairs = say_what_decides(
        evaluation(held_out_rows=70, rows=40, held_out_pairs=46), "win_rate", gain(0.1, 0.3), 0.0
    )
    assert "but the dataset holds out 46. Have experts rank more drafts" in of_pairs


def test_a_gain_at_the_limit_needs_no_number_of_rows() -> None:
    assert count_needed_rows(gain(0.05, 0.02), 0.05) is None
    assert count_needed_rows(gain(0.0501, 0.02), 0.05) is None
    verdict = decide(GATE, with_gain("log_likelihood", base=gain(0.05, 0.02)))
    assert "too small for any number of rows" in verdict.reasons[0]


def test_a_loss_to_the_incumbent_refuses_although_the_base_is_beaten() -> None:
    worse = with_gain("log_likelihood", base=gain(0.3, 0.1), incumbent=gain(-0.2, 0.1))
    assert decide(GATE, replace(worse, incumbent_digest="ad0")).decision is Decision.REFUSED
    assert decide(GATE, worse).decision is Decision.PASSED


def test_an_adapter_that_serves_already_is_not_compared_with_itself() -> None:
    same = with_gain("log_likelihood", base=gain(0.3, 0.1), incumbent=gain(0.0, 0.0))
    assert decide(GATE, replace(same, incumbent_digest="ad1")).decision is Decision.PASSED


def test_a_negative_minimum_admits_a_candidate_that_is_not_better() -> None:
    equal = replace(with_gain("log_likelihood", base=gain(0.3, 0.1), incumbent=gain(0.0, 0.01)), incumbent_digest="ad0")
    assert decide(GATE, equal).decision is Decision.UNDECIDED
    tolerant = replace(GATE, primary=PrimaryMetric("log_likelihood", 0.05, -0.02))
    assert decide(tolerant, equal).decision is Decision.PASSED


def test_a_guard_counts_against_the_incumbent_or_else_the_base() -> None:
    lost = with_gain("rougeL", base=gain(0.1, 0.01), incumbent=gain(-0.1, 0.05))
    assert decide(GATE, lost).decision is Decision.PASSED
    verdict = decide(GATE, replace(lost, incumbent_digest="ad0"))
    assert verdict.decision is Decision.REFUSED
    assert "guard rougeL" in verdict.reasons[0]


def test_a_guard_that_may_be_lost_is_undecided() -> None:
    verdict = decide(GATE, with_gain("rougeL", base=gain(0.0, 0.05)))
    assert verdict.decision is Decision.UNDECIDED
    assert "allows a loss of 0.02" in verdict.reasons[0]


def test_the_more_guards_can_refuse_the_more_certain_each_must_be() -> None:
    names = ("rougeL", "bleu", "terms", "fabrication", "repetition")
    many = replace(GATE, guards=tuple(GuardMetric(name, 0.0) for name in names))
    equal = dict(evaluation().metrics) | {name: figures(name, base=gain(0.0, 0.0)) for name in names}
    lost = evaluation(metrics=equal | {"rougeL": figures("rougeL", base=gain(-0.11, 0.1))})
    verdict = decide(many, lost)
    assert verdict.decision is Decision.UNDECIDED
    assert "which 5 guards together do not make certain (up to +0.021)" in verdict.reasons[0]
    assert "about 36 rows would decide" in verdict.reasons[0]
    assert decide(replace(many, guards=many.guards[:1]), lost).decision is Decision.REFUSED
    certain = evaluation(metrics=equal | {"rougeL": figures("rougeL", base=gain(-0.15, 0.1))})
    assert decide(many, certain).decision is Decision.REFUSED


@pytest.mark.parametrize("number", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("metric", ["log_likelihood", "rougeL"])
def test_a_gain_over_a_figure_that_is_not_finite_passes_nothing(metric: str, number: float) -> None:
    endless = Interval(number, number, number, 24)
    for candidate in (endless, Interval(1.0, 0.5, number, 24)):
        verdict = decide(GATE, with_gain(metric, base=candidate))
        assert verdict.decision is not Decision.PASSED
        if number == math.inf:
            assert verdict.decision is Decision.REFUSED and "no measurement" in " ".join(verdict.reasons)


def test_an_equal_guard_without_a_margin_passes() -> None:
    strict = replace(GATE, guards=(GuardMetric("rougeL", 0.0),))
    assert decide(strict, with_gain("rougeL", base=gain(0.0, 0.0))).decision is Decision.PASSED


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"rows": 19}, "the gate requires 20"),
        ({"suites": {}}, "parity was not measured"),
        ({"suites": {"parity": value(0.2)}}, "parity is 0.2000"),
        ({"suites": {"parity": value(float("nan"))}}, "parity is nan"),
        ({"metrics": {}}, "log_likelihood was not measured"),
        ({"suites": {"parity": value(0.0), "memorisation.memorised": value(1)}}, "1 secrets or true values"),
        ({"not_measured": {"memorisation": "no vault"}}, "memorisation was not measured (no vault)"),
    ],
)
def test_refuses_what_breaks_a_hard_limit_or_was_not_measured(changes: dict[str, object], sentence: str) -> None:
    verdict = decide(GATE, evaluation(**changes))
    assert verdict.decision is Decision.REFUSED
    assert any(sentence in reason for reason in verdict.reasons)


def test_a_limit_of_a_suite_counts_only_if_it_is_set() -> None:
    forgot = MetricIntervals("forgetting.loss", {}, {"base": gain(-0.3, 0.5)})
    forgotten = evaluation(suites={"parity": value(0.0), "forgetting.loss": forgot})
    assert decide(GATE, forgotten).decision is Decision.PASSED
    assert decide(replace(GATE, max_forgetting=0.4), forgotten).decision is Decision.PASSED
    limited = replace(GATE, max_forgetting=0.2)
    assert "forgetting.loss loses 0.300 (95 %: " in decide(limited, forgotten).reasons[0]
    assert "the suite forgetting was not measured" in decide(limited, evaluation()).reasons[0]


def test_a_model_to_beat_that_was_not_measured_refuses() -> None:
    verdict = decide(replace(GATE, beat=()), evaluation())
    assert verdict.decision is Decision.REFUSED
    assert "not measured for few_shot" in verdict.reasons[0]


def test_says_why_a_model_to_beat_was_not_measured() -> None:
    gate = replace(GATE, beat=("external:gpt",))
    verdict = decide(gate, evaluation(not_measured={"external:gpt": "The external model gpt refused the key."}))
    assert "not measured for external:gpt (The external model gpt refused the key.)" in verdict.reasons[0]


def test_an_adapter_that_does_not_beat_prompting_is_refused_and_the_reason_says_so() -> None:
    worse = with_gain("log_likelihood", base=gain(0.3, 0.1), few_shot=gain(-0.2, 0.1))
    verdict = decide(replace(GATE, beat=()), worse)
    assert verdict.decision is Decision.REFUSED
    assert (
        "over few_shot, the base with house examples in its prompt; the gate requires more than" in verdict.reasons[0]
    )
    assert "An adapter that does not beat prompting is not promoted." in verdict.reasons[0]


def test_pairs_decide_by_default_and_documents_guard() -> None:
    gate = replace(GATE, primary=PrimaryMetric(), guards=())
    won = replace(with_gain("pair_margin", base=gain(0.2, 0.1)), preferences="p1")
    assert decide(gate, won).reasons == ("pair_margin gains +0.200 (95 %: +0.100 to +0.300, 24 rows) over base",)
    lost = replace(won, metrics={**won.metrics, "log_likelihood": figures("log_likelihood", base=gain(-1.0, 0.1))})
    assert "guard log_likelihood" in decide(gate, lost).reasons[0]
    assert decide(gate, evaluation()).decision is Decision.PASSED


def ranked(pairs: Interval, documents: Interval, **changes: object) -> Evaluation:
    """A candidate with new rankings, and its gains over an adapter that serves without any."""
    metrics = {
        "pair_margin": figures("pair_margin", base=gain(-0.1, 0.3), incumbent=pairs),
        "log_likelihood": figures("log_likelihood", base=gain(0.3, 0.1), incumbent=documents),
    }
    return replace(evaluation(incumbent_digest="ad0", preferences="p1"), metrics=metrics, **changes)  # type: ignore[arg-type]


def test_after_new_rankings_pairs_or_documents_must_gain_over_what_serves() -> None:
    """The margins over the base vary with the stages before; they do not count if an adapter serves."""
    won = decide(DEFAULT, ranked(gain(0.1, 0.05), gain(0.0, 0.05)))
    assert won.decision is Decision.PASSED
    assert [reason[:24] for reason in won.reasons] == ["log_likelihood gains +0.", "pair_margin gains +0.100"]
    documents = decide(DEFAULT, ranked(gain(0.0, 0.05), gain(0.1, 0.05)))
    assert documents.decision is Decision.PASSED
    assert documents.reasons[1] == "log_likelihood gains +0.100 (95 %: +0.050 to +0.150, 24 rows) over incumbent"
    neither = decide(DEFAULT, ranked(gain(0.0, 0.05), gain(-0.05, 0.02)))
    assert neither.decision is Decision.UNDECIDED
    told = "pair_margin or log_likelihood must gain over what serves: pair_margin gains +0.000"
    assert len(neither.reasons) == 1 and neither.reasons[0].startswith(told)
    both = decide(DEFAULT, ranked(gain(-0.1, 0.05), gain(-0.05, 0.02)))
    assert both.decision is Decision.REFUSED and len(both.reasons) == 2


def test_the_better_of_two_metrics_must_be_more_certain() -> None:
    """Of two exchangeable candidates, the better of two intervals of 95 % would pass one in twenty."""
    verdict = decide(DEFAULT, ranked(gain(0.102, 0.1), gain(0.0, 0.05)))
    assert verdict.decision is Decision.UNDECIDED
    assert "which is not certain for the better of 2 metrics (from -0.012)" in verdict.reasons[0]


def test_documents_that_new_rankings_lose_are_guarded_and_must_beat_the_base() -> None:
    lost = decide(DEFAULT, ranked(gain(0.1, 0.05), gain(-0.3, 0.1)))
    assert lost.decision is Decision.REFUSED and "guard log_likelihood" in lost.reasons[0]
    known = ranked(gain(0.1, 0.05), gain(0.0, 0.05))
    documents = figures("log_likelihood", base=gain(-0.3, 0.1), incumbent=gain(0.0, 0.05))
    below = decide(DEFAULT, replace(known, metrics={**known.metrics, "log_likelihood": documents}))
    assert below.decision is Decision.REFUSED and below.reasons[0].startswith("log_likelihood gains -0.300")
    chosen = replace(GATE, primary=PrimaryMetric("pair_margin"), guards=())
    assert decide(chosen, known).decision is Decision.UNDECIDED


def test_new_rankings_keep_half_of_what_older_ones_taught() -> None:
    """The incumbent gained 0.2 over the base; documents that gain do not make up for the loss of 0.3."""
    lost = ranked(gain(-0.3, 0.05), gain(0.1, 0.05), incumbent_preferences="p0")
    verdict = decide(DEFAULT, lost)
    assert verdict.decision is Decision.REFUSED and "the guard pair_margin gains -0.300" in verdict.reasons[0]


DEFAULT = replace(GATE, primary=PrimaryMetric(), guards=())


def with_rankings(win_rate: Interval, *, new: str = "p1", old: str = "p1") -> Evaluation:
    """A candidate and an incumbent that learned from rankings; the win rate's gain is over the incumbent."""
    known = with_gain("win_rate", base=gain(0.3, 0.1), incumbent=win_rate)
    return replace(known, preferences=new, incumbent_preferences=old, incumbent_digest="ad0")


def test_new_documents_with_the_same_rankings_are_decided_by_the_documents() -> None:
    verdict = decide(DEFAULT, with_rankings(gain(0.0, 0.05)))
    assert verdict.decision is Decision.PASSED
    assert verdict.reasons[0].startswith("log_likelihood gains")


@pytest.mark.parametrize("gate", [DEFAULT, GATE])
def test_a_round_that_would_lose_what_experts_taught_is_refused(gate: Gate) -> None:
    verdict = decide(gate, with_rankings(gain(-0.4, 0.1)))
    assert verdict.decision is Decision.REFUSED
    assert "the guard win_rate gains -0.400" in verdict.reasons[0]
    never_ranked = decide(gate, with_rankings(gain(-0.4, 0.1), new="", old=""))
    assert never_ranked.decision is Decision.PASSED


def with_margins(base: Interval, incumbent: Interval) -> Evaluation:
    """Rankings that serve already, and the pair margin's gains; no pair changed its order."""
    known = with_rankings(gain(0.0, 0.0))
    return replace(
        known, metrics={**known.metrics, "pair_margin": figures("pair_margin", base=base, incumbent=incumbent)}
    )


@pytest.mark.parametrize("gate", [DEFAULT, GATE])
def test_half_of_what_experts_taught_must_be_kept(gate: Gate) -> None:
    """The incumbent gained 0.06 over the base."""
    kept = with_margins(gain(0.05, 0.02), gain(-0.01, 0.01))
    assert decide(gate, kept).decision is Decision.PASSED
    lost = decide(gate, with_margins(gain(0.01, 0.02), gain(-0.05, 0.01)))
    assert lost.decision is Decision.REFUSED
    assert "the guard pair_margin gains -0.050" in lost.reasons[0] and "a loss of 0.03" in lost.reasons[0]
    unclear = decide(gate, with_margins(gain(0.03, 0.02), gain(-0.03, 0.01)))
    assert unclear.decision is Decision.UNDECIDED


@pytest.mark.parametrize("base", [0.02, -0.02])
def test_pairs_that_cannot_show_the_loss_guard_by_their_order(base: float) -> None:
    """Half of what was taught is less than the interval's half width, or nothing was."""
    unseen = with_margins(gain(base, 0.02), gain(0.0, 0.02))
    assert decide(DEFAULT, unseen).decision is Decision.PASSED
    swapped = replace(unseen, metrics={**unseen.metrics, "win_rate": figures("win_rate", incumbent=gain(-0.4, 0.1))})
    assert "the guard win_rate gains -0.400" in decide(DEFAULT, swapped).reasons[0]


def test_a_guard_of_the_gate_takes_the_place_of_the_default_one() -> None:
    gate = replace(GATE, guards=(GuardMetric("win_rate", 0.6),))
    assert decide(gate, with_rankings(gain(-0.4, 0.1))).decision is Decision.PASSED
    assert decide(gate, with_margins(gain(0.01, 0.02), gain(-0.05, 0.01))).decision is Decision.PASSED


def test_a_judge_without_agreement_does_not_count() -> None:
    """It cannot decide, and as a guard it is left out, which the verdict says."""
    lost = with_gain("rougeL", base=gain(-0.5, 0.1))
    disagrees = {"rougeL": "kappa 0.1 is below 0.4"}
    verdict = decide(GATE, replace(lost, not_measured=disagrees))
    assert verdict.decision is Decision.PASSED
    assert "the guard rougeL does not count: kappa 0.1 is below 0.4" in verdict.reasons
    primary = replace(GATE, primary=PrimaryMetric("rougeL"), guards=())
    won = with_gain("rougeL", base=gain(0.5, 0.1))
    assert decide(primary, replace(won, not_measured=disagrees)).decision is Decision.REFUSED


def test_nan_never_passes() -> None:
    nothing = Interval(float("nan"), float("-inf"), float("inf"), 0)
    assert decide(GATE, with_gain("log_likelihood", base=nothing)).decision is Decision.UNDECIDED
