"""Experts' marks as conditions of the gate: a floor, and a loss against what serves."""

import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from services.registry.domain import (
    Arm,
    CanaryPolicy,
    Decision,
    Gate,
    JudgingPolicy,
    Outcome,
    PanelGuard,
    PrimaryMetric,
    Specialist,
)
from services.registry.rules.canary import decide_outcome
from services.registry.rules.canary_panel import (
    PanelMark,
    check_panel,
    compare_marks,
    explain_undecided,
    find_panel_violations,
    summarize_marks,
)
from services.registry.rules.gate import decide
from services.registry.rules.gate_checks import find_gate_violations
from services.registry.wire import from_specialist, to_evaluation, to_specialist
from tailor.words import JudgingCriterion
from tests.evaluations import make_evaluated, make_figures

START = datetime(2026, 11, 2, tzinfo=UTC)
FLOOR = PanelGuard("accuracy", min_mean=3.5)
LOSS = PanelGuard("accuracy", max_loss=0.5)
BOTH = PanelGuard("accuracy", min_mean=3.5, max_loss=0.5)
FOURS, FIVES, TWOS = [4, 5, 4, 4] * 10, [5, 5, 5, 4] * 10, [2, 1, 3, 2] * 10


def give(
    canary: Sequence[int], incumbent: Sequence[int] = (), *, criterion: str = "accuracy", expert: str = "exp_1"
) -> list[PanelMark]:
    """One mark of each draft, a minute apart."""
    return [
        PanelMark(criterion, f"{is_canary} {place}", is_canary, expert, mark, START + timedelta(minutes=place))
        for is_canary, marks in ((True, canary), (False, incumbent))
        for place, mark in enumerate(marks)
    ]


def test_a_mean_that_is_certainly_above_the_floor_meets_it() -> None:
    (comparison,) = compare_marks([FLOOR], give(FOURS))
    assert comparison.outcome is Outcome.FORWARD
    # The first look has 20 drafts, so later ones are not in the sentence.
    assert "the experts' accuracy is 4.25 in 20 drafts by 1 expert (3.80 to 4.70)" in comparison.reason
    assert "the gate requires 3.5" in comparison.reason


def test_a_mean_that_is_certainly_below_the_floor_breaks_it() -> None:
    (comparison,) = compare_marks([FLOOR], give(TWOS))
    assert comparison.outcome is Outcome.BACK and "is 2.00 in 20 drafts" in comparison.reason
    assert check_panel([FLOOR], give(TWOS))[0][0] is Decision.REFUSED
    assert "`tailor specialist guidelines NAME`" in check_panel([FLOOR], give(TWOS))[0][1]


def test_a_loss_is_compared_with_what_serves() -> None:
    (kept,) = compare_marks([LOSS], give(FIVES * 3, FIVES * 3))
    assert kept.outcome is Outcome.FORWARD and "a gain of +0.00 (" in kept.reason and "a loss of 0.5" in kept.reason
    (lost,) = compare_marks([LOSS], give(TWOS, FIVES))
    assert lost.outcome is Outcome.BACK and "2.00 in 20 drafts by 1 expert, against 4.75 in 20" in lost.reason


def test_a_guard_with_both_limits_has_two_conditions() -> None:
    # Good enough, but worse than what serves: a floor alone would let it pass.
    floor, loss = compare_marks([BOTH], give([4] * 40, [5] * 40))
    assert (floor.outcome, loss.outcome) == (Outcome.FORWARD, Outcome.BACK)


@pytest.mark.parametrize(("canary", "incumbent"), [(19, 200), (200, 19), (1, 1)])
def test_too_few_marked_drafts_decide_nothing(canary: int, incumbent: int) -> None:
    marks = give([5] * canary, [1] * incumbent)
    (comparison,) = compare_marks([LOSS], marks)
    assert comparison.outcome is None
    assert f"not decided: {canary} drafts are marked, against {incumbent}; the gate requires 20" in comparison.reason


def test_marks_that_do_not_settle_it_leave_it_undecided() -> None:
    (comparison,) = compare_marks([PanelGuard("accuracy", min_mean=3.0)], give([1, 5] * 100))
    assert comparison.outcome is None and "3.00 in 160 drafts" in comparison.reason


def test_without_a_mark_it_was_not_measured_and_never_passes() -> None:
    for marks in ([], give(FOURS, criterion="style"), give([], FOURS)):
        ((decision, sentence),) = check_panel([LOSS], marks)
        assert decision is Decision.UNDECIDED
        assert sentence == "the experts' accuracy was not measured: no draft of its canary has a mark"


def test_marks_by_a_criterion_that_was_renamed_do_not_count() -> None:
    renamed = replace(FLOOR, criterion="correctness")
    assert check_panel([renamed], give(FOURS))[0][0] is Decision.UNDECIDED
    assert check_panel([renamed], [*give(TWOS), *give(FOURS, criterion="correctness")])[0][0] is Decision.PASSED


def test_a_drafts_mark_is_the_mean_of_its_experts_last_marks() -> None:
    again = [replace(mark, mark=5, moment=mark.moment + timedelta(days=1)) for mark in give([1, 1])]
    other = give([2, 2], expert="exp_2")
    (comparison,) = summarize_marks([FLOOR], [*again, *give([1, 1]), *other])
    assert (comparison.canary.drafts, comparison.canary.experts, comparison.canary.mean) == (2, 2, 3.5)
    assert (comparison.incumbent.drafts, comparison.incumbent.experts, comparison.incumbent.mean) == (0, 0, None)
    assert comparison.conditions == ("the experts' accuracy is not decided: 2 drafts are marked; the gate requires 20",)


def test_several_experts_of_a_draft_are_one_draft() -> None:
    marks = [mark for expert in ("a", "b", "c") for mark in give([5] * 19, expert=expert)]
    assert compare_marks([FLOOR], marks)[0].outcome is None


def test_later_marks_change_no_earlier_look() -> None:
    later = [
        replace(mark, mark=1, moment=START + timedelta(days=1), prompt_digest=f"later {place}")
        for place, mark in enumerate(give([1] * 19))
    ]
    revised = [replace(mark, mark=1, moment=START + timedelta(days=2)) for mark in give(FOURS[:20])]
    alone = compare_marks([FLOOR], give(FOURS[:20]))
    assert alone[0].outcome is Outcome.FORWARD
    assert compare_marks([FLOOR], [*give(FOURS[:20]), *later, *revised]) == alone


def test_the_more_conditions_can_withdraw_the_more_certain_each_must_be() -> None:
    marks = give([3, 2] * 10)
    strict = PanelGuard("accuracy", min_mean=3.0)
    others = [PanelGuard(f"criterion-{number}", min_mean=2.0, max_loss=1.0) for number in range(4)]
    assert compare_marks([strict], marks)[0].outcome is Outcome.BACK
    assert compare_marks([strict, *others], marks)[0].outcome is None


@pytest.mark.parametrize(("loss", "wrong"), [(0.5, Outcome.FORWARD), (0.4, Outcome.BACK)])
def test_chance_decides_wrongly_at_most_once_in_twenty(loss: float, wrong: Outcome) -> None:
    """At the limit, a promotion is wrong; within it, a withdrawal."""
    draw = random.Random(5)
    count = 0
    for _ in range(100):
        incumbent = draw.choices((2, 3, 4, 5), (1, 3, 4, 2), k=80)
        # This share of the marks is one lower, and so the mean is lower by as much.
        canary = [mark - (draw.random() < loss) for mark in draw.choices((2, 3, 4, 5), (1, 3, 4, 2), k=80)]
        count += compare_marks([LOSS], give(canary, incumbent))[0].outcome is wrong
    assert count <= 5


GATE = Gate(PrimaryMetric("rougeL"), beat=("base",), panel=(BOTH,))
EVALUATION = to_evaluation(make_evaluated("a", "reports", make_figures("rougeL", base=0.1, candidate=0.3)))


def test_the_gate_says_what_was_not_measured_before_a_canary_and_refuses_what_marks_break() -> None:
    assert decide(GATE, EVALUATION).decision is Decision.PASSED
    unmeasured = check_panel(GATE.panel, [])
    assert decide(GATE, EVALUATION, unmeasured).decision is Decision.UNDECIDED
    before = decide(GATE, EVALUATION, explain_undecided(unmeasured, Decision.PASSED, "its canary decides"))
    assert before.decision is Decision.PASSED
    assert sum("was not measured" in reason and "its canary decides" in reason for reason in before.reasons) == 1
    broken = explain_undecided(check_panel(GATE.panel, give(TWOS, FIVES)), Decision.PASSED, "its canary decides")
    verdict = decide(GATE, EVALUATION, broken)
    assert verdict.decision is Decision.REFUSED and len(verdict.reasons) == 2


def test_a_canary_is_promoted_only_if_every_condition_is_met() -> None:
    policy, arm = CanaryPolicy(min_calls=20, max_seconds=600), Arm(20, 0, 3, 0.2, 0.02)

    def decided(canary: Sequence[int], incumbent: Sequence[int], seconds: float = 60) -> tuple[Outcome, str] | None:
        verdict = decide_outcome(policy, arm, arm, seconds, panel=compare_marks([BOTH], give(canary, incumbent)))
        return (verdict.outcome, verdict.reason) if verdict else None

    forward = decided(FIVES, FIVES)
    assert forward is not None and forward[0] is Outcome.FORWARD
    assert "calls failed" in forward[1] and "the gate requires 3.5" in forward[1] and "a loss of 0.5" in forward[1]
    back = decided(TWOS, FIVES)
    assert back is not None and back[0] is Outcome.BACK and "calls failed" not in back[1]
    assert decided(FIVES[:10], FIVES) is None
    late = decided(FIVES[:10], FIVES, 600)
    assert late is not None and late[0] is Outcome.BACK
    assert late[1].startswith("undecided after 600 s: the experts' accuracy is not decided: 10 drafts are marked")


SPECIALIST = Specialist("reports", "tiny", "lora", gate=GATE, keep_drafts=True, canary=CanaryPolicy())


def test_a_gate_may_name_only_what_experts_are_asked_and_a_canary_can_measure() -> None:
    assert find_gate_violations(SPECIALIST) == {}
    own = replace(SPECIALIST, judging=JudgingPolicy(criteria=(JudgingCriterion("tone", "Right?", "no", "yes"),)))
    assert find_gate_violations(own) == {"gate.panel[0].criterion": "must be one of the judging criteria: tone"}
    for unmeasurable in (replace(SPECIALIST, canary=None), replace(SPECIALIST, keep_drafts=False)):
        assert "needs a `canary` table and `keep_drafts = true`" in find_gate_violations(unmeasurable)["gate.panel"]
    assert find_gate_violations(replace(SPECIALIST, gate=Gate(), canary=None)) == {}


@pytest.mark.parametrize(
    ("guard", "field"),
    [
        (PanelGuard("accuracy"), "panel[0]"),
        (replace(FLOOR, min_mean=1.0), "panel[0].min_mean"),
        (replace(FLOOR, min_mean=5.0), "panel[0].min_mean"),
        (replace(FLOOR, min_mean=float("nan")), "panel[0].min_mean"),
        (replace(LOSS, max_loss=0.0), "panel[0].max_loss"),
        (replace(LOSS, max_loss=4.5), "panel[0].max_loss"),
        (replace(LOSS, min_drafts=9), "panel[0].min_drafts"),
        (replace(LOSS, min_drafts=10_001), "panel[0].min_drafts"),
    ],
)
def test_guards_have_limits(guard: PanelGuard, field: str) -> None:
    assert [*find_panel_violations([guard], JudgingPolicy(), is_measurable=True)] == [field]


def test_a_criterion_has_one_guard() -> None:
    violations = find_panel_violations([FLOOR, LOSS], JudgingPolicy(), is_measurable=True)
    assert violations == {"panel[1].criterion": "is listed twice"}


def test_guards_survive_the_wire_and_have_a_default() -> None:
    several = replace(GATE, panel=(BOTH, PanelGuard("style", max_loss=0.25, min_drafts=40)))
    message = from_specialist(replace(SPECIALIST, gate=several))
    assert to_specialist(message).gate == several
    message.gate.panel[0].ClearField("min_drafts")
    assert to_specialist(message).gate.panel[0].min_drafts == 20
    assert not message.gate.panel[1].HasField("min_mean")
