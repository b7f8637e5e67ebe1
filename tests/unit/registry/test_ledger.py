"""The ledger of a specialist's month."""

from datetime import UTC, datetime, timedelta

import pytest

from services.registry.rules.ledger import (
    JudgeUse,
    LedgerKind,
    LedgerLine,
    Month,
    RunUse,
    TeacherUse,
    UnitPrices,
    bill_judge,
    bill_judgements,
    bill_runs,
    bill_teacher,
    parse_month,
)
from tailor.errors import InvalidArgument

MAY = Month(datetime(2026, 5, 1, tzinfo=UTC), datetime(2026, 6, 1, tzinfo=UTC))
NOON = datetime(2026, 5, 9, 12, tzinfo=UTC)
FREE = UnitPrices()
PRICED = UnitPrices("EUR", 5.0, 1.0, 2.0)


def use(run_id: str, hours: float, moment: datetime = NOON, device: str = "H100", rate: float | None = 4.0) -> RunUse:
    amount = None if rate is None else hours * rate
    return RunUse(run_id, device, hours * 3600, amount, "" if rate is None else "EUR", moment)


def test_a_run_counts_once_however_often_and_in_whatever_order_it_reported() -> None:
    reports = [use("run_1", 1.0), use("run_1", 3.0), use("run_1", 2.0), use("run_1", 3.0), use("run_2", 0.5)]
    assert bill_runs(reports, MAY) == [LedgerLine(LedgerKind.COMPUTE, 3.5, "H100", 2, 14.0, "EUR")]
    assert bill_runs(reversed(reports), MAY) == bill_runs(reports, MAY)


def test_a_run_counts_in_the_month_of_its_last_report() -> None:
    reports = [use("run_1", 1.0, MAY.start - timedelta(hours=1)), use("run_1", 2.0), use("run_2", 1.0, MAY.end)]
    (line,) = bill_runs(reports, MAY)
    assert (line.quantity, line.runs) == (2.0, 1)
    assert bill_runs(reports, parse_month("2026-04", NOON)) == []


def test_devices_have_a_line_each_and_no_price_where_none_is_set() -> None:
    reports = [use("run_1", 1.0), use("run_2", 4.0, device="2 CPU cores", rate=None), use("run_3", 0.0, device="idle")]
    assert bill_runs(reports, MAY) == [
        LedgerLine(LedgerKind.COMPUTE, 4.0, "2 CPU cores", 1),
        LedgerLine(LedgerKind.COMPUTE, 1.0, "H100", 1, 4.0, "EUR"),
    ]


def test_teacher_tokens_are_those_that_the_month_added() -> None:
    uses = [
        TeacherUse(1_000_000, MAY.start - timedelta(days=3)),
        TeacherUse(1_000_000, NOON),
        TeacherUse(3_000_000, NOON + timedelta(days=1)),
        TeacherUse(9_000_000, MAY.end),
    ]
    assert bill_teacher(uses, MAY, PRICED) == [
        LedgerLine(LedgerKind.TEACHER_TOKENS, 2_000_000, amount=10.0, currency="EUR")
    ]
    assert bill_teacher(uses, MAY, FREE) == [LedgerLine(LedgerKind.TEACHER_TOKENS, 2_000_000)]
    assert bill_teacher(uses[:2], MAY, PRICED) == []


def test_judge_tokens_of_the_months_evaluations_are_added_up() -> None:
    uses = [JudgeUse(9, MAY.start - timedelta(days=1)), JudgeUse(1_000_000, NOON), JudgeUse(500_000, NOON)]
    assert bill_judge(uses, MAY, PRICED) == [LedgerLine(LedgerKind.JUDGE_TOKENS, 1_500_000, amount=1.5, currency="EUR")]
    assert bill_judge([JudgeUse(0, NOON)], MAY, PRICED) == []


def test_judgements_of_the_month_are_counted() -> None:
    moments = [MAY.start - timedelta(seconds=1), MAY.start, NOON, MAY.end]
    assert bill_judgements(moments, MAY, PRICED) == [LedgerLine(LedgerKind.JUDGEMENTS, 2, amount=4.0, currency="EUR")]


def test_months_begin_and_end_in_utc() -> None:
    assert parse_month("2026-05", NOON) == MAY == parse_month("", NOON)
    december = parse_month("2026-12", NOON)
    assert (december.start, december.end) == (datetime(2026, 12, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC))


@pytest.mark.parametrize("text", ["2026-13", "2026-5", "May", "2026-05-01", "0000-01", "9999-12"])
def test_what_is_no_month_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        parse_month(text, NOON)
    assert list(refused.value.field_violations) == ["month"]
