"""Forecasts of runs, reports of what they took, and prices. Standard library only."""

from dataclasses import dataclass, replace
from datetime import datetime

SECONDS_PER_HOUR = 3600.0
# Steps are whole, rows have different lengths, and the next forecast may draw others: a dataset that fits must fit by this margin.
FIT_SHARE = 0.9
# A dataset of fewer tokens is not worth a proposal.
MIN_FITTING_TOKENS = 1_000


@dataclass(frozen=True)
class Price:
    """An amount in `currency` (ISO 4217), by its parts."""

    currency: str = "EUR"
    compute: float = 0.0
    teacher: float = 0.0
    annotation: float = 0.0

    @property
    def total(self) -> float:
        """Sum of the parts."""
        return self.compute + self.teacher + self.annotation


@dataclass(frozen=True)
class Rates:
    """Prices per device hour, per million teacher tokens, and per expert judgement."""

    currency: str = "EUR"
    device_hour: float = 0.0
    million_teacher_tokens: float = 0.0
    judgement: float = 0.0


@dataclass(frozen=True)
class HourLimits:
    """Device hours of a forecast above which a run waits for approval, on CPUs and on GPUs."""

    cpu: float = 2.0
    gpu: float = 24.0


@dataclass(frozen=True)
class StageSettings:
    """The settings of a stage that follow base, data and device: a rate, and `accumulation` micro-batches of `tokens` a step."""

    recipe: str
    learning_rate: float
    tokens: int
    accumulation: int
    gradient_checkpointing: bool


@dataclass(frozen=True)
class Plan:
    """A forecast over all stages of a run. `seconds_from` is `measured` or `estimated`. The planner leaves `price` and the limit empty.

    Of its seconds, `fixed_seconds` do not depend on the number of rows from documents; each token of those costs
    `train_token_seconds` over all passes. Above `max_hours` device hours the run needs approval, and
    `fitting_train_tokens` is a `max_train_tokens` that avoids it, or 0. `budget_left` is what was left of the
    specialist's budget when the plan was made, in the price's currency; None without a budget.
    """

    rows: int
    tokens: int
    steps: int
    memory_bytes: int
    device_memory_bytes: int
    device: str
    devices: int
    seconds: float
    seconds_from: str
    fits: bool
    create_time: datetime
    refusal: str = ""
    nearest_recipe: str = ""
    price: Price = Price()
    rows_skipped: int = 0
    budget_left: float | None = None
    gpu: bool = False
    fixed_seconds: float = 0.0
    train_token_seconds: float = 0.0
    max_hours: float = 0.0
    fitting_train_tokens: int = 0
    run_id: str = ""
    settings: tuple[StageSettings, ...] = ()

    @property
    def device_hours(self) -> float:
        """Hours of all its devices together."""
        return self.devices * self.seconds / SECONDS_PER_HOUR

    @property
    def needs_approval(self) -> bool:
        """True if the forecast is above the limit."""
        return 0 < self.max_hours < self.device_hours

    @property
    def hourly_price(self) -> float:
        """Price of the run's devices per hour; 0 if they are free."""
        return self.price.compute / self.seconds * SECONDS_PER_HOUR if self.seconds else 0.0


@dataclass(frozen=True)
class RunReport:
    """The actual cost of a run. Each error is forecast / actual - 1, or 0 without a forecast."""

    rows: int
    tokens: int
    steps: int
    memory_bytes: int
    seconds: float
    price: Price
    memory_error: float
    seconds_error: float
    tokens_error: float
    rows_skipped: int = 0


def price_run(rates: Rates, devices: int, seconds: float, teacher_tokens: int, judgements: int) -> Price:
    """Price of the compute time and of what went into the datasets."""
    return Price(
        currency=rates.currency,
        compute=price_compute(rates, devices, seconds),
        teacher=teacher_tokens / 1e6 * rates.million_teacher_tokens,
        annotation=judgements * rates.judgement,
    )


def price_compute(rates: Rates, devices: int, seconds: float) -> float:
    """Price of `devices` devices for `seconds` seconds."""
    return devices * seconds / SECONDS_PER_HOUR * rates.device_hour


def add_price(plan: Plan, rates: Rates, teacher_tokens: int, judgements: int) -> Plan:
    """The plan with its price."""
    return replace(plan, price=price_run(rates, plan.devices, plan.seconds, teacher_tokens, judgements))


def limit_hours(plan: Plan, limits: HourLimits, specialist_hours: float) -> Plan:
    """The plan with the limit that holds for it: the installation's, or the specialist's own if that is lower (0: none)."""
    installation = limits.gpu if plan.gpu else limits.cpu
    limited = replace(plan, max_hours=min(installation, specialist_hours or installation))
    return replace(limited, fitting_train_tokens=_fit_train_tokens(limited) if limited.needs_approval else 0)


def _fit_train_tokens(plan: Plan) -> int:
    """The tokens of the train split with which the run is within its limit, rounded down to two digits; 0 if no number is of use."""
    seconds = FIT_SHARE * plan.max_hours * SECONDS_PER_HOUR / plan.devices - plan.fixed_seconds
    if seconds <= 0 or not plan.train_token_seconds:
        return 0
    tokens = int(seconds / plan.train_token_seconds)
    unit = 10 ** max(0, len(str(tokens)) - 2)
    return tokens // unit * unit if tokens >= MIN_FITTING_TOKENS else 0


def explain_limit(plan: Plan) -> str:
    """The forecast and the limit that it exceeds, as a sentence."""
    unit = "device hours" if plan.devices > 1 else "hours"
    hours, limit = _format_hours(plan.device_hours), _format_hours(plan.max_hours)
    return f"The run is forecast at {hours} {unit}, above the limit of {limit}; the time is {plan.seconds_from}."


def _format_hours(hours: float) -> str:
    return f"{hours:,.2f}".rstrip("0").rstrip(".")


def forecast_error(forecast: float, actual: float) -> float:
    """forecast / actual - 1, so 0.1 means 10 % too high. 0 if either is 0."""
    return forecast / actual - 1 if forecast and actual else 0.0
