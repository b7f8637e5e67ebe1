"""The Protocol of the models that suites ask."""

from collections.abc import Sequence
from typing import Protocol

from services.evaluation.domain import Score

Messages = tuple[tuple[str, str], ...]


class SuiteAsker(Protocol):
    """The models under evaluation, by their names in the evaluation. Methods block, and keep the order of what they are given."""

    def answer(self, model: str, prompts: Sequence[Messages], max_tokens: int) -> list[str]:
        """Generate an answer to each prompt."""
        ...

    def score(self, model: str, pairs: Sequence[tuple[Messages, str]]) -> list[Score]:
        """Score each completion of a prompt by its log-probability."""
        ...
