"""What a run would take, what it took, and what that costs. Standard library only."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from services.training.domain import Base, Dataset, Stage
    from tailor.storage.ref import Ref

SECONDS_PER_HOUR = 3600.0


@dataclass(frozen=True)
class Price:
    """A sum in `currency` (ISO 4217), by its parts."""

    currency: str = "EUR"
    compute: float = 0.0
    teacher: float = 0.0
    annotation: float = 0.0

    @property
    def total(self) -> float:
        """The sum."""
        return self.compute + self.teacher + self.annotation


@dataclass(frozen=True)
class Rates:
    """What things cost here: an hour of a device, a million tokens of the teacher, a judgement of an expert."""

    currency: str = "EUR"
    device_hour: float = 0.0
    million_teacher_tokens: float = 0.0
    judgement: float = 0.0


@dataclass(frozen=True)
class PlanRequest:
    """What is planned. A stage without a dataset waits for one, and is left out of the forecast; so is what its `parent` is made of where
    an earlier stage makes it. `parent` is the manifest of the adapter that the run starts from; None for the base itself."""

    specialist: str
    base: "Base"
    stages: "tuple[Stage, ...]"
    parent: "Ref | None" = None


@dataclass(frozen=True)
class Plan:
    """A forecast over all stages of a run. `seconds_from` is `measured` or `estimated`. `price` is the service's to fill in."""

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

    @property
    def hourly_price(self) -> float:
        """Of its devices; 0 where they cost nothing."""
        return self.price.compute / self.seconds * SECONDS_PER_HOUR if self.seconds else 0.0


@dataclass(frozen=True)
class Report:
    """What a run took. An error is the forecast over what was used, less 1; 0 where nothing was forecast."""

    rows: int
    tokens: int
    steps: int
    memory_bytes: int
    seconds: float
    price: Price
    memory_error: float
    seconds_error: float
    tokens_error: float


class Planner(Protocol):
    """Forecasts runs."""

    def plan(self, request: PlanRequest) -> Plan:
        """The forecast; what does not fit is answered too, with the nearest recipe that would.

        It loads no weights, may take seconds, and is never called within a transaction. May raise Unavailable, and FailedPrecondition or
        InvalidArgument where dataset or base are not what they should be.
        """
        ...


def price_of(rates: Rates, devices: int, seconds: float, datasets: "Iterable[Dataset]") -> Price:
    """The price of so much time, and of what went into the datasets."""
    found = list(datasets)
    return Price(
        currency=rates.currency,
        compute=compute_price(rates, devices, seconds),
        teacher=sum(dataset.teacher_tokens for dataset in found) / 1e6 * rates.million_teacher_tokens,
        annotation=sum(dataset.judgements for dataset in found) * rates.judgement,
    )


def compute_price(rates: Rates, devices: int, seconds: float) -> float:
    """The price of devices for so long."""
    return devices * seconds / SECONDS_PER_HOUR * rates.device_hour


def priced(plan: Plan, rates: Rates, datasets: "Iterable[Dataset]") -> Plan:
    """The plan with its price."""
    return replace(plan, price=price_of(rates, plan.devices, plan.seconds, datasets))


def error_of(forecast: float, used: float) -> float:
    """The forecast over what was used, less 1: 0.1 is ten percent too much."""
    return forecast / used - 1 if forecast and used else 0.0
