"""The ledger of a specialist: what it used in a calendar month, each run, synthesis, evaluation and judgement counted once."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum, auto

from tailor.errors import InvalidArgument, Reason

SECONDS_PER_HOUR = 3600.0


class LedgerKind(Enum):
    """Kinds of use: device hours, tokens of a teacher and of a judge model, judgements."""

    COMPUTE = auto()
    TEACHER_TOKENS = auto()
    JUDGE_TOKENS = auto()
    JUDGEMENTS = auto()


@dataclass(frozen=True)
class UnitPrices:
    """The installation's prices, 0 for none. Those of compute come with the facts of each run."""

    currency: str = "EUR"
    million_teacher_tokens: float = 0.0
    million_judge_tokens: float = 0.0
    judgement: float = 0.0


@dataclass(frozen=True)
class RunUse:
    """The use of a run up to a moment. `amount` is None without a price."""

    run_id: str
    device: str
    device_seconds: float
    amount: float | None
    currency: str
    moment: datetime


@dataclass(frozen=True)
class TeacherUse:
    """The tokens that a specialist's syntheses had used when a dataset was built; they only grow, unless rows were erased."""

    tokens: int
    moment: datetime


@dataclass(frozen=True)
class JudgeUse:
    """The tokens that the judge model used for one evaluation."""

    tokens: int
    moment: datetime


@dataclass(frozen=True)
class LedgerLine:
    """The sum of one kind, for compute of one device. `amount` is None without a price."""

    kind: LedgerKind
    quantity: float
    device: str = ""
    runs: int = 0
    amount: float | None = None
    currency: str = ""


@dataclass(frozen=True)
class Month:
    """A calendar month in UTC: from `start` to before `end`."""

    start: datetime
    end: datetime

    def has(self, moment: datetime) -> bool:
        """True if the moment is in the month."""
        return self.start <= moment < self.end


def parse_month(text: str, now: datetime) -> Month:
    """The month that `YYYY-MM` names, or the current one if the text is empty. Raises InvalidArgument (INVALID_REQUEST)."""
    try:
        if text and len(text) != len("YYYY-MM"):
            raise ValueError(text)
        start = datetime.strptime(text, "%Y-%m").replace(tzinfo=UTC) if text else now.astimezone(UTC)
        start = start.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        end = start.replace(year=start.year + start.month // 12, month=start.month % 12 + 1)
    except ValueError:
        raise InvalidArgument(
            Reason.INVALID_REQUEST, "The month is invalid.", field_violations={"month": "must be like 2026-05"}
        ) from None
    return Month(start, end)


def bill_runs(uses: Iterable[RunUse], month: Month) -> list[LedgerLine]:
    """A line per device and currency. A run counts once, with the most that it reported, in the month of that report."""
    last: dict[str, RunUse] = {}
    for use in uses:
        known = last.get(use.run_id)
        if known is None or (use.device_seconds, use.moment) > (known.device_seconds, known.moment):
            last[use.run_id] = use
    groups: dict[tuple[str, str], list[RunUse]] = defaultdict(list)
    for use in last.values():
        if month.has(use.moment) and use.device_seconds > 0:
            groups[use.device, use.currency].append(use)
    return [_sum_runs(device, currency, found) for (device, currency), found in sorted(groups.items())]


def bill_teacher(uses: Iterable[TeacherUse], month: Month, prices: UnitPrices) -> list[LedgerLine]:
    """The tokens that were used up to the end of the month, without those of earlier months; no line without any."""
    before, until = 0, 0
    for use in uses:
        if use.moment < month.start:
            before = max(before, use.tokens)
        if use.moment < month.end:
            until = max(until, use.tokens)
    tokens = until - before
    return _price_line(LedgerKind.TEACHER_TOKENS, tokens, prices.million_teacher_tokens / 1e6, prices.currency)


def bill_judge(uses: Iterable[JudgeUse], month: Month, prices: UnitPrices) -> list[LedgerLine]:
    """The tokens of the month's evaluations; no line without any. Expects each evaluation once."""
    tokens = sum(use.tokens for use in uses if month.has(use.moment))
    return _price_line(LedgerKind.JUDGE_TOKENS, tokens, prices.million_judge_tokens / 1e6, prices.currency)


def bill_judgements(moments: Iterable[datetime], month: Month, prices: UnitPrices) -> list[LedgerLine]:
    """The number of judgements in the month; no line without any."""
    count = sum(map(month.has, moments))
    return _price_line(LedgerKind.JUDGEMENTS, count, prices.judgement, prices.currency)


def _sum_runs(device: str, currency: str, uses: Sequence[RunUse]) -> LedgerLine:
    hours = sum(use.device_seconds for use in uses) / SECONDS_PER_HOUR
    amounts = [use.amount for use in uses if use.amount is not None]
    return LedgerLine(LedgerKind.COMPUTE, hours, device, len(uses), sum(amounts) if amounts else None, currency)


def _price_line(kind: LedgerKind, quantity: int, price: float, currency: str) -> list[LedgerLine]:
    if quantity <= 0:
        return []
    if not price:
        return [LedgerLine(kind, quantity)]
    return [LedgerLine(kind, quantity, amount=quantity * price, currency=currency)]
