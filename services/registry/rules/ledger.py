"""The ledger of a specialist: what it used in a calendar month. Each run, synthesis, evaluation, answer, file and judgement counts once."""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import Enum, auto

from tailor.errors import InvalidArgument, Reason

SECONDS_PER_HOUR, SECONDS_PER_MINUTE, MINUTES_PER_HOUR = 3600.0, 60.0, 60.0
BYTES_PER_GIGABYTE = 1e9
# An open page is not work. The judging page is built for 50 judgements an hour, 72 seconds each; an edit of a draft takes minutes.
MAX_JUDGING_SECONDS = 900.0


class LedgerKind(Enum):
    """Kinds of use: device hours of runs and of answers, tokens of a teacher and of a judge model, gigabyte-months, judgements, minutes."""

    COMPUTE = auto()
    TEACHER_TOKENS = auto()
    JUDGE_TOKENS = auto()
    SERVING = auto()
    STORAGE = auto()
    JUDGEMENTS = auto()
    EXPERT_MINUTES = auto()


@dataclass(frozen=True)
class UnitPrices:
    """The installation's prices, 0 for none. Those of compute come with the facts of each run."""

    currency: str = "EUR"
    million_teacher_tokens: float = 0.0
    million_judge_tokens: float = 0.0
    judgement: float = 0.0
    serving_hour: float = 0.0
    gigabyte_month: float = 0.0
    expert_hour: float = 0.0


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
class ServingUse:
    """The seconds of a device that answers used in a month, and the number of these answers."""

    device: str
    seconds: float
    answers: int


@dataclass(frozen=True)
class StorageUse:
    """Bytes that were stored since a moment, and until another; None if they still are."""

    size_bytes: int
    since: datetime
    until: datetime | None = None


@dataclass(frozen=True)
class JudgementUse:
    """A judgement, and the seconds that it took; None if they are not known."""

    moment: datetime
    seconds: float | None = None


@dataclass(frozen=True)
class LedgerLine:
    """The sum of one kind, for compute and serving of one device. `amount` is None without a price.

    `runs` counts runs of compute, answers of serving, and judgements of expert minutes.
    """

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
    """A line per device and currency. A run counts with the most that it reported in the month, less what it had reported before."""
    before: dict[str, RunUse] = {}
    until: dict[str, RunUse] = {}
    for use in uses:
        if use.moment < month.start:
            _keep_largest(before, use)
        elif use.moment < month.end:
            _keep_largest(until, use)
    groups: dict[tuple[str, str], list[RunUse]] = defaultdict(list)
    for run_id, use in until.items():
        added = _subtract(use, before.get(run_id))
        if added.device_seconds > 0:
            groups[added.device, added.currency].append(added)
    return [_sum_runs(device, currency, device_runs) for (device, currency), device_runs in sorted(groups.items())]


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


def bill_serving(uses: Iterable[ServingUse], prices: UnitPrices) -> list[LedgerLine]:
    """A line per device in device hours. Expects the uses of one month, one for each device."""
    bill: list[LedgerLine] = []
    for use in sorted(uses, key=lambda use: use.device):
        hours = use.seconds / SECONDS_PER_HOUR
        lines = _price_line(LedgerKind.SERVING, hours, prices.serving_hour, prices.currency)
        bill += [replace(line, device=use.device, runs=use.answers) for line in lines]
    return bill


def bill_storage(uses: Iterable[StorageUse], month: Month, now: datetime, prices: UnitPrices) -> list[LedgerLine]:
    """Gigabyte-months up to `now`: bytes times the share of the month in which they were stored. No line without any."""
    length = (month.end - month.start).total_seconds()
    byte_months = 0.0
    for use in uses:
        end = min(use.until or now, now, month.end)
        stored = (end - max(use.since, month.start)).total_seconds()
        byte_months += use.size_bytes * max(stored, 0.0) / length
    gigabyte_months = byte_months / BYTES_PER_GIGABYTE
    return _price_line(LedgerKind.STORAGE, gigabyte_months, prices.gigabyte_month, prices.currency)


def bill_judgements(uses: Iterable[JudgementUse], month: Month, prices: UnitPrices) -> list[LedgerLine]:
    """The judgements of the month and the experts' minutes, as far as these are known; no line without any.

    With a price per expert hour, a judgement of known duration counts in minutes only, so that it is priced once.
    """
    known = [use for use in uses if month.has(use.moment)]
    timed = [use.seconds for use in known if use.seconds is not None]
    count = len(known) - (len(timed) if prices.expert_hour else 0)
    minutes = sum(min(seconds, MAX_JUDGING_SECONDS) for seconds in timed) / SECONDS_PER_MINUTE
    by_minutes = _price_line(LedgerKind.EXPERT_MINUTES, minutes, prices.expert_hour / MINUTES_PER_HOUR, prices.currency)
    return [
        *_price_line(LedgerKind.JUDGEMENTS, count, prices.judgement, prices.currency),
        *(replace(line, runs=len(timed)) for line in by_minutes),
    ]


def sum_amounts(lines: Iterable[LedgerLine], currency: str) -> float:
    """The sum of the prices in a currency."""
    return sum(line.amount or 0.0 for line in lines if line.currency == currency)


def cap_seconds(seconds: float) -> float | None:
    """The seconds of a judgement that count; None for 0, which means unknown. Raises InvalidArgument (INVALID_JUDGEMENT)."""
    if not math.isfinite(seconds) or seconds < 0:
        raise InvalidArgument(
            Reason.INVALID_JUDGEMENT,
            "The judgement is invalid.",
            field_violations={"seconds": "must be above 0, or 0 if they are unknown"},
        )
    return min(seconds, MAX_JUDGING_SECONDS) or None


def _keep_largest(uses: dict[str, RunUse], use: RunUse) -> None:
    known = uses.get(use.run_id)
    if known is None or (use.device_seconds, use.moment) > (known.device_seconds, known.moment):
        uses[use.run_id] = use


def _subtract(use: RunUse, earlier: RunUse | None) -> RunUse:
    """The use since earlier months. `amount` covers all seconds at the newest price, so it is scaled by their share."""
    if earlier is None or not use.device_seconds:
        return use
    seconds = max(use.device_seconds - earlier.device_seconds, 0.0)
    amount = None if use.amount is None else use.amount * seconds / use.device_seconds
    return replace(use, device_seconds=seconds, amount=amount)


def _sum_runs(device: str, currency: str, uses: Sequence[RunUse]) -> LedgerLine:
    hours = sum(use.device_seconds for use in uses) / SECONDS_PER_HOUR
    amounts = [use.amount for use in uses if use.amount is not None]
    return LedgerLine(LedgerKind.COMPUTE, hours, device, len(uses), sum(amounts) if amounts else None, currency)


def _price_line(kind: LedgerKind, quantity: float, price: float, currency: str) -> list[LedgerLine]:
    if quantity <= 0:
        return []
    if not price:
        return [LedgerLine(kind, quantity)]
    return [LedgerLine(kind, quantity, amount=quantity * price, currency=currency)]
