"""The price of 1,000 answers of a model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from services.evaluation.domain import EXTERNAL, Answer, ModelCost, ModelResult

MILLION = 1_000_000
HOUR = 3600


@dataclass(frozen=True)
class PricePerToken:
    """Price of a million tokens of prompts, and of answers, in a currency (ISO 4217)."""

    prompt: float
    answer: float
    currency: str

    def per_1000(self, answers: Sequence[Answer], concurrency: int) -> float:
        """The price of 1,000 answers like these."""
        del concurrency
        tokens = sum(answer.prompt_tokens * self.prompt + answer.tokens * self.answer for answer in answers)
        return 1000 * tokens / MILLION / len(answers)


@dataclass(frozen=True)
class HourPrice:
    """Price of an hour of the machine that answers, in a currency (ISO 4217)."""

    hour: float
    currency: str

    def per_1000(self, answers: Sequence[Answer], concurrency: int) -> float:
        """The price of 1,000 answers like these, if the machine always answers `concurrency` requests at a time."""
        seconds = sum(answer.seconds for answer in answers) / len(answers) / concurrency
        return 1000 * seconds / HOUR * self.hour


Price = PricePerToken | HourPrice


@dataclass(frozen=True)
class Prices:
    """Prices of external models by their names in an evaluation, and one of the models that inference answers for (`internal`)."""

    external: Mapping[str, Price] = field(default_factory=dict)
    internal: Price | None = None

    def add_to(self, cost: ModelCost, result: ModelResult, concurrency: int) -> ModelCost:
        """The cost with the model's price; unchanged without a price or without answers."""
        price = self.external.get(cost.model) if cost.model.startswith(EXTERNAL) else self.internal
        answers = [answer for answer in result.answers if answer is not None]
        if price is None or not answers:
            return cost
        parallel = max(1, min(concurrency, len(answers)))
        return replace(cost, price_per_1000=price.per_1000(answers, parallel), currency=price.currency)
