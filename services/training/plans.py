"""Forecasts of runs, reports of what they took, and prices. Standard library only."""

from dataclasses import dataclass, replace
from datetime import datetime

SECONDS_PER_HOUR = 3600.0


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
class Plan:
    """A forecast over all stages of a run. `seconds_from` is `measured` or `estimated`. The planner leaves `price` empty.

    `budget_left` is what was left of the specialist's budget when the plan was made, in the price's currency; None without a budget.
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
    rows_left_out: int = 0
    budget_left: float | None = None

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
    rows_left_out: int = 0


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


def forecast_error(forecast: float, actual: float) -> float:
    """forecast / actual - 1, so 0.1 means 10 % too high. 0 if either is 0."""
    return forecast / actual - 1 if forecast and actual else 0.0
