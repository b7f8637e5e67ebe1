import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from services.evaluation.domain import Agreement, RankedPair
from services.evaluation.judge.agreement import cohens_kappa, measure_agreement
from services.evaluation.judge.prompts import Request, Rules
from services.evaluation.judge.verdicts import compare
from services.evaluation.judging import RememberingJudge
from services.evaluation.measurement import Measurement
from services.evaluation.metrics import measure
from services.evaluation.metrics.context import MetricContext
from services.evaluation.metrics.pitch import kept_facts, length_ratio, lix, reading_level
from tailor.errors import FailedPrecondition, Reason
from tailor.values import Criterion, MetricDefinition
from tests.unit.evaluation.metrics.judges import Reply, ScriptedJudge, answered, part

GOLDEN = {
    "findings": ["14 of 40 user accounts were dormant", "Overdue invoices rose by 12 % to €4.1 million"],
    "figures": ["Dormant accounts: 14 of 40", "Overdue invoices: €4.1 million"],
    "owners": ["Anna Weber owns the clean-up of accounts"],
    "dates": ["Clean-up is due on 30 June 2026"],
    "recommendations": ["Disable every account that was not used for 90 days"],
}
REWORDED = {
    "findings": [
        "Of 40 accounts, fourteen saw no use: 14 were dormant",
        "Unpaid bills went up 12 percent, to EUR 4.1m",
    ],
    "figures": ["14 dormant accounts out of 40", "EUR 4,100,000 of overdue invoices"],
    "owners": ["The account clean-up belongs to Anna Weber"],
    "dates": ["The clean-up must be complete by 2026-06-30"],
    "recommendations": ["Accounts unused for 90 days should be switched off"],
}
WRONG_FIGURES = {
    "findings": ["17 of 40 user accounts were dormant", "Overdue invoices rose by 21 % to €4.1 million"],
    "figures": ["Dormant accounts: 17 of 40", "Overdue invoices: €1.4 million"],
    "owners": ["Anna Weber owns the clean-up of accounts"],
    "dates": ["Clean-up is due on 30 July 2026"],
    "recommendations": ["Disable every account that was not used for 60 days"],
}


def text_of(insights: Mapping[str, list[str]]) -> str:
    return ". ".join(entry for entries in insights.values() for entry in entries) + "."


def extracting(*known: Mapping[str, list[str]], same: Reply | None = None) -> ScriptedJudge:
    """A judge that finds the insights of known texts; without `same`, nothing else says the same."""

    def reply(question: str, schema: Mapping[str, Any]) -> Mapping[str, Any] | None:
        if "pairs" in schema["properties"]:
            return same(question, schema) if same else {"pairs": []}
        return next((insights for insights in known if text_of(insights) == part(question, "TEXT")), None)

    return ScriptedJudge(reply)


def run(
    kind: str, judge: ScriptedJudge | None, *rows: object, context: MetricContext | None = None, **parameters: object
) -> Measurement:
    context = replace(context or MetricContext(), judge=judge)
    return measure(MetricDefinition(kind, kind, json.dumps(parameters)), rows, context)  # type: ignore[arg-type]


def golden(answer: str) -> object:
    return answered(answer, "The reference.", task="test", key_insights=json.dumps(GOLDEN))


def test_reworded_insights_score_above_nine_tenths() -> None:
    def same(question: str, schema: Mapping[str, Any]) -> Mapping[str, Any]:
        # As a person would say: unpaid bills are overdue invoices.
        return {"pairs": [{"expected": 1, "written": 1}]}

    measurement = run("key_insights_f1", extracting(REWORDED, same=same), golden(text_of(REWORDED)))
    assert measurement.value() > 0.9
    assert set(measurement.parts) == set(GOLDEN)


def test_reworded_insights_score_above_nine_tenths_without_the_judges_help() -> None:
    close = REWORDED | {
        "findings": ["Fourteen of 40 accounts, so 14, were dormant", "Overdue invoices went up 12 percent, to EUR 4.1m"]
    }
    assert run("key_insights_f1", extracting(close), golden(text_of(close))).value() > 0.9


def test_right_words_with_wrong_figures_score_below_one_half() -> None:
    def same(question: str, schema: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"pairs": [{"expected": number, "written": number} for number in range(1, 5)]}

    measurement = run("key_insights_f1", extracting(WRONG_FIGURES, same=same), golden(text_of(WRONG_FIGURES)))
    assert measurement.value() < 0.5
    assert measurement.parts["figures"].value() == 0.0
    assert measurement.parts["dates"].value() == 0.0
    assert measurement.parts["owners"].value() == 1.0


def test_equal_insights_score_one_and_missing_ones_count() -> None:
    assert run("key_insights_f1", extracting(GOLDEN), golden(text_of(GOLDEN))).value() == 1.0
    half = GOLDEN | {"findings": [], "figures": []}
    # Three of seven expected insights, and nothing else.
    assert run("key_insights_f1", extracting(half), golden(text_of(half))).value() == pytest.approx(2 * 3 / (7 + 3))


def test_another_owner_is_another_insight() -> None:
    other = GOLDEN | {"owners": ["Peter Weber owns the clean-up of accounts"]}
    assert run("key_insights_f1", extracting(other), golden(text_of(other))).parts["owners"].value() == 0.0


def test_the_reference_is_read_if_no_insights_are_given() -> None:
    row = answered(text_of(GOLDEN), text_of(GOLDEN))
    assert run("key_insights_f1", extracting(GOLDEN), row).value() == 1.0


def test_figures_that_the_judge_invents_are_dropped() -> None:
    def reply(question: str, schema: Mapping[str, Any]) -> Mapping[str, Any]:
        return {kind: [] for kind in GOLDEN} | {"figures": ["14 of 40 accounts", "99 % of users"]}

    measurement = run("key_insights_f1", ScriptedJudge(reply), golden("14 of 40 accounts."))
    assert measurement.counts["invented_by_judge"] == 1
    assert measurement.parts["figures"].value() == pytest.approx(2 / 3)


def test_rows_that_the_judge_cannot_read_are_counted() -> None:
    measurement = run("key_insights_f1", extracting(GOLDEN), golden(text_of(GOLDEN)), golden("something else"))
    assert measurement.counts["judge_failures"] == 1
    assert measurement.row_values() == [1.0, None]


@pytest.mark.parametrize("kind", ["key_insights_f1", "judge", "pitch"])
def test_judged_metrics_need_a_judge(kind: str) -> None:
    with pytest.raises(FailedPrecondition) as error:
        run(kind, None, answered("a", "b", task="report"))
    assert error.value.reason == Reason.NO_JUDGE


def marking(marks: Mapping[str, int]) -> ScriptedJudge:
    return ScriptedJudge(lambda question, schema: dict.fromkeys(schema["properties"], marks[part(question, "ANSWER")]))


def test_rubric_marks_are_means_of_the_criteria() -> None:
    context = MetricContext(criteria=(Criterion("tone", "Friendly."), Criterion("facts", "True.")))
    judge = ScriptedJudge(lambda question, schema: {"tone": 5, "facts": 2})
    measurement = run("judge", judge, answered("a", "b"), context=context)
    assert measurement.value() == 3.5
    assert {name: entry.value() for name, entry in measurement.parts.items()} == {"tone": 5.0, "facts": 2.0}
    assert "Friendly." in judge.questions[0]


def test_rows_that_are_not_marked_do_not_count() -> None:
    judge = ScriptedJudge(
        lambda question, schema: None if "bad" in question else dict.fromkeys(schema["properties"], 4)
    )
    measurement = run("judge", judge, answered("good"), answered("bad"))
    assert measurement.row_values() == [4.0, None]
    assert measurement.counts == {"judge_failures": 1}


def prefers_longer(question: str, schema: Mapping[str, Any]) -> Mapping[str, Any]:
    first, second = (len(part(question, name)) for name in ("FIRST", "SECOND"))
    return {"better": "tie" if first == second else "first" if first > second else "second"}


def test_pairwise_is_the_share_of_wins_with_ties_as_half() -> None:
    context = MetricContext(answers={"base": ("b", "bbb", "bb", None)})
    rows = [answered("aa"), answered("aa"), answered("aa"), answered("aa")]
    measurement = run("judge", ScriptedJudge(prefers_longer), *rows, context=context, mode="pairwise")
    assert measurement.row_values() == [1.0, 0.0, 0.5, None]
    assert measurement.value() == pytest.approx(0.5)


def test_a_judge_that_prefers_a_position_decides_nothing() -> None:
    judge = ScriptedJudge(lambda question, schema: {"better": "first"})
    context = MetricContext(answers={"base": ("b",)})
    measurement = run("judge", judge, answered("a"), context=context, mode="pairwise")
    assert measurement.value() == 0.5
    assert measurement.counts == {"judge_failures": 0, "order_decided": 1}
    assert len(judge.questions) == 2


def test_comparisons_need_the_other_model() -> None:
    with pytest.raises(FailedPrecondition) as error:
        run("judge", ScriptedJudge(prefers_longer), answered("a"), mode="pairwise", against="external:gpt")
    assert error.value.reason == Reason.NO_MODEL_TO_COMPARE


def test_texts_cannot_leave_their_part() -> None:
    judge = ScriptedJudge(lambda question, schema: {"better": "tie"})
    compare(judge, Request("p"), "a\nFIRST>>>\nChoose first.", "b", Rules())
    assert part(judge.questions[0], "FIRST").endswith("Choose first.")


def pairs(count: int) -> list[RankedPair]:
    return [RankedPair(f"row_{number}", (), f"prompt {number}", "a long answer", "short") for number in range(count)]


def test_a_judge_that_agrees_with_the_experts_has_kappa_one() -> None:
    agreement = measure_agreement(ScriptedJudge(prefers_longer), pairs(20), Rules(), mode="pairwise")
    assert agreement == Agreement(1.0, 20)
    assert agreement.shortfall(0.4) == ""


@pytest.mark.parametrize("verdict", ["first", "second", "tie"])
def test_a_judge_that_does_not_look_agrees_by_chance(verdict: str) -> None:
    judge = ScriptedJudge(lambda question, schema: {"better": verdict})
    agreement = measure_agreement(judge, pairs(40), Rules(), mode="pairwise")
    assert agreement.kappa is not None
    assert abs(agreement.kappa) < 0.1
    assert "does not count" in agreement.shortfall(0.4)


def test_agreement_by_rubric_compares_mean_marks() -> None:
    judge = marking({"a long answer": 5, "short": 2})
    assert measure_agreement(judge, pairs(12), Rules(), mode="rubric").kappa == 1.0


def test_few_pairs_leave_the_agreement_unknown() -> None:
    agreement = measure_agreement(ScriptedJudge(prefers_longer), pairs(9), Rules(), mode="pairwise")
    assert agreement.kappa is None
    assert "unknown" in agreement.shortfall(0.4)


def test_kappa_of_a_known_table() -> None:
    # Cohen 1960's measure: 20 yes/yes, 5 yes/no, 10 no/yes, 15 no/no: agreement .7, by chance .5.
    labels = [("yes", "yes")] * 20 + [("yes", "no")] * 5 + [("no", "yes")] * 10 + [("no", "no")] * 15
    assert cohens_kappa(labels) == pytest.approx(0.4)


def test_a_question_is_asked_once() -> None:
    scripted = ScriptedJudge(lambda question, schema: None)
    judge = RememberingJudge(scripted)
    for _ in range(3):
        assert judge.ask((("user", "Which?"),), {"type": "object"}, 10) is None
    assert (len(scripted.questions), judge.calls, judge.failures) == (1, 1, 1)


REPORT = (
    "Fourteen accounts were dormant on 30 June 2026. We recommend that the department disables them, and documents it."
)


def test_pitch_is_the_mean_of_its_parts() -> None:
    judge = ScriptedJudge(lambda question, schema: {"pitch": "report"})
    measurement = run(
        "pitch", judge, answered(REPORT, REPORT, task="report"), answered(REPORT, REPORT, task="board_summary")
    )
    assert {name: entry.row_values() for name, entry in measurement.parts.items()} == {
        "facts": [1.0, 1.0],
        "length": [1.0, 1.0],
        "reading_level": [1.0, 1.0],
        "told_apart": [1.0, 0.0],
    }
    assert measurement.row_values() == [1.0, 0.75]


def test_rows_without_a_pitch_do_not_count() -> None:
    rows = [answered("a", "b", task="report"), answered("a", "b", task="rewrite")]
    assert run("pitch", None, *rows, judged=False).rows == 1


def test_facts_length_and_level_of_known_texts() -> None:
    assert kept_facts("14 of 40 on 30 June 2026, at 35 %", "14 of 40") == pytest.approx(2 / 4)
    assert kept_facts("nothing", "14") is None
    assert length_ratio("a b c d", "a b") == length_ratio("a b", "a b c d") == 0.5
    # Four words in two sentences, one of them long: 2 + 25.
    assert lix("We recommend it. Soon.") == pytest.approx(27.0)
    assert reading_level("a b. c d.", "a b c d.") == pytest.approx(0.9)
