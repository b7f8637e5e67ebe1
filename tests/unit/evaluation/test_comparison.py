"""Two models row by row."""

import pytest

from services.evaluation.comparison import ReportedModel, ReportedRow, compare
from services.evaluation.domain import HeldOutRow
from services.evaluation.report import ReportStore
from services.evaluation.wire import from_comparison
from tailor.errors import FailedPrecondition, InvalidArgument, NotFound, Reason
from tailor.storage.memory import MemoryStore
from tests.unit.evaluation.test_adapters import make_report


def model(*values: float, first: int = 0, lower_is_better: bool = False, task: str = "report") -> ReportedModel:
    rows = tuple(
        ReportedRow(
            HeldOutRow(f"row_{number}", task if number % 2 else "answer", (f"doc_{number}",), (("user", "Q"),), "R"),
            f"answer {number}",
            {"rougeL": value},
        )
        for number, value in enumerate(values, start=first)
    )
    return ReportedModel(rows, {"bleu": False, "rougeL": lower_is_better})


def test_rows_that_differ_most_come_first_with_signed_gains() -> None:
    comparison = compare(model(0.1, 0.5, 0.3), model(0.2, 0.1, 0.3))
    assert [(pair.row.row_id, round(pair.gain, 3)) for pair in comparison.rows] == [
        ("row_1", -0.4),
        ("row_0", 0.1),
        ("row_2", 0.0),
    ]
    assert (comparison.metric, comparison.metrics) == ("rougeL", ("rougeL",))


def test_a_lower_value_of_a_metric_where_lower_is_better_is_a_gain() -> None:
    (pair,) = compare(model(3.0, lower_is_better=True), model(2.0, lower_is_better=True)).rows
    assert pair.gain == 1.0


def test_groups_are_all_rows_then_tasks_with_intervals() -> None:
    whole, answers, reports = compare(model(0.1, 0.5, 0.3, 0.2), model(0.2, 0.6, 0.5, 0.4)).groups
    assert (whole.rows, answers.task, answers.rows, reports.task, reports.rows) == (4, "answer", 2, "report", 2)
    assert whole.gain.value == pytest.approx(0.15)
    assert whole.gain.low < 0.15 < whole.gain.high
    assert whole.second.value - whole.first.value == pytest.approx(0.15)


def test_filters_choose_rows_but_not_groups() -> None:
    comparison = compare(model(0.1, 0.5), model(0.2, 0.6), task="answer")
    assert [pair.row.row_id for pair in comparison.rows] == ["row_0"]
    assert comparison.groups[0].rows == 2


def test_rows_of_one_side_alone_are_counted() -> None:
    comparison = compare(model(0.1, 0.5, 0.3), model(0.2, first=2))
    assert (len(comparison.rows), comparison.only_first, comparison.only_second) == (1, 2, 0)


def test_models_without_a_common_row_cannot_be_compared() -> None:
    with pytest.raises(FailedPrecondition) as raised:
        compare(model(0.1), model(0.2, first=7))
    assert raised.value.reason == Reason.NOT_COMPARABLE


def test_an_unknown_metric_is_refused_with_those_that_exist() -> None:
    with pytest.raises(InvalidArgument) as raised:
        compare(model(0.1), model(0.2), "bleu")
    assert raised.value.field_violations == {"metric": "must be one of rougeL"}


def test_pages_are_bounded_and_continue() -> None:
    comparison = compare(model(*[0.1] * 7), model(*[0.2] * 7))
    first = from_comparison(comparison, 0, 5)
    last = from_comparison(comparison, int(first.next_page_token), 5)
    assert (len(first.rows), len(last.rows), last.next_page_token) == (5, 2, "")
    assert len({row.row_id for row in (*first.rows, *last.rows)}) == 7


def test_a_stored_report_is_read_back_for_one_model() -> None:
    reports = ReportStore(MemoryStore())
    ref = reports.write(make_report())
    read = reports.read_model(ref, "candidate")
    assert [(row.answer, row.values) for row in read.rows] == [("answer of candidate", {"rougeL": 0.25}), (None, {})]
    assert read.lower_is_better == {"rougeL": False, "perplexity": True}
    with pytest.raises(NotFound):
        reports.read_model(ref, "few_shot")
