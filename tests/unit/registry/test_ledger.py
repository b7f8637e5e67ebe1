"""The ledger of a specialist's month."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from services.registry.rules.ledger import (
    JudgementUse,
    JudgeUse,
    LedgerKind,
    LedgerLine,
    Month,
    RunUse,
    ServingUse,
    StorageUse,
    TeacherUse,
    UnitPrices,
    bill_judge,
    bill_judgements,
    bill_runs,
    bill_serving,
    bill_storage,
    bill_teacher,
    cap_seconds,
    parse_month,
    sum_amounts,
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


def test_a_run_counts_in_each_month_with_what_that_month_added() -> None:
    april = MAY.start - timedelta(hours=1)
    reports = [
        use("run_1", 1.0, april),
        use("run_1", 3.0, rate=6.0),
        use("run_2", 1.0, MAY.end),
        use("run_3", 1.0, april),
    ]
    (line,) = bill_runs([*reports, use("run_3", 1.0)], MAY)
    assert (line.quantity, line.runs, line.amount) == (2.0, 1, 12.0)
    (line,) = bill_runs(reports, parse_month("2026-04", NOON))
    assert (line.quantity, line.runs, line.amount) == (2.0, 2, 8.0)


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
    uses = [JudgementUse(moment) for moment in moments]
    assert bill_judgements(uses, MAY, PRICED) == [LedgerLine(LedgerKind.JUDGEMENTS, 2, amount=4.0, currency="EUR")]


def test_minutes_of_experts_are_added_up_and_an_open_page_counts_for_at_most_15() -> None:
    uses = [JudgementUse(NOON, 90.0), JudgementUse(NOON, 7 * 3600.0), JudgementUse(NOON), JudgementUse(MAY.end, 60.0)]
    assert bill_judgements(uses, MAY, FREE) == [
        LedgerLine(LedgerKind.JUDGEMENTS, 3),
        LedgerLine(LedgerKind.EXPERT_MINUTES, 16.5, runs=2),
    ]


def test_a_judgement_is_priced_once_by_its_minutes_if_there_is_a_price_for_them() -> None:
    uses = [JudgementUse(NOON, 90.0), JudgementUse(NOON)]
    by_judgement, minutes = bill_judgements(uses, MAY, PRICED)
    assert (by_judgement.quantity, by_judgement.amount, minutes.amount) == (2, 4.0, None)
    by_judgement, minutes = bill_judgements(uses, MAY, replace(PRICED, expert_hour=40.0))
    assert (by_judgement.quantity, by_judgement.amount) == (1, 2.0)
    assert (minutes.quantity, minutes.amount, minutes.runs) == (1.5, 1.0, 1)


@pytest.mark.parametrize(("seconds", "counted"), [(0.0, None), (12.5, 12.5), (900.0, 900.0), (86_400.0, 900.0)])
def test_seconds_of_a_judgement_are_capped(seconds: float, counted: float | None) -> None:
    assert cap_seconds(seconds) == counted


@pytest.mark.parametrize("seconds", [-1.0, float("nan"), float("inf")])
def test_impossible_seconds_are_refused(seconds: float) -> None:
    with pytest.raises(InvalidArgument) as refused:
        cap_seconds(seconds)
    assert list(refused.value.field_violations) == ["seconds"]


def test_serving_has_a_line_for_each_device() -> None:
    uses = [ServingUse("2 CPU cores", 1800.0, 40), ServingUse("1 x H100", 7200.0, 900)]
    assert bill_serving(uses, replace(PRICED, serving_hour=3.0)) == [
        LedgerLine(LedgerKind.SERVING, 2.0, "1 x H100", 900, 6.0, "EUR"),
        LedgerLine(LedgerKind.SERVING, 0.5, "2 CPU cores", 40, 1.5, "EUR"),
    ]
    assert bill_serving([], PRICED) == []


def test_storage_counts_by_the_share_of_the_month_in_which_it_was_stored() -> None:
    middle = MAY.start + (MAY.end - MAY.start) / 2
    uses = [
        StorageUse(4_000_000_000, MAY.start - timedelta(days=90)),
        StorageUse(2_000_000_000, middle),
        StorageUse(6_000_000_000, MAY.start - timedelta(days=90), middle),
        StorageUse(9_000_000_000, MAY.start - timedelta(days=90), MAY.start - timedelta(days=1)),
        StorageUse(9_000_000_000, MAY.end),
    ]
    prices, later = replace(PRICED, gigabyte_month=0.5), MAY.end + timedelta(days=400)
    (line,) = bill_storage(uses, MAY, later, prices)
    assert line.kind is LedgerKind.STORAGE
    assert line.quantity == pytest.approx(8.0) and line.amount == pytest.approx(4.0)
    (so_far,) = bill_storage(uses, MAY, middle, prices)
    assert so_far.quantity == pytest.approx(5.0)
    assert bill_storage(uses[3:], MAY, later, prices) == []


def test_the_budget_is_compared_with_the_prices_in_its_currency() -> None:
    lines = [
        LedgerLine(LedgerKind.COMPUTE, 1.0, amount=4.0, currency="EUR"),
        LedgerLine(LedgerKind.SERVING, 1.0, amount=2.5, currency="EUR"),
        LedgerLine(LedgerKind.COMPUTE, 1.0, amount=9.0, currency="USD"),
        LedgerLine(LedgerKind.STORAGE, 1.0),
    ]
    assert sum_amounts(lines, "EUR") == 6.5


def test_months_begin_and_end_in_utc() -> None:
    assert parse_month("2026-05", NOON) == MAY == parse_month("", NOON)
    december = parse_month("2026-12", NOON)
    assert (december.start, december.end) == (datetime(2026, 12, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC))


@pytest.mark.parametrize("text", ["2026-13", "2026-5", "May", "2026-05-01", "0000-01", "9999-12"])
def test_what_is_no_month_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        parse_month(text, NOON)
    assert list(refused.value.field_violations) == ["month"]
