"""The base with another prompt for each row: the first of several that the context holds, with an answer as long as the reference."""

import threading
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field

from services.evaluation.domain import BASE, TOO_LONG, Answer, HeldOutRow, Score
from services.evaluation.ports import EvaluatedModel, Messages, Models
from tailor.errors import InvalidArgument
from tailor.values import SamplingDefaults


@dataclass(frozen=True)
class FittedPrompt:
    """A prompt, its place among those that were tried, and the base's score of the row's reference after it."""

    messages: Messages
    place: int
    score: Score


@dataclass
class PromptedBase(EvaluatedModel):
    """The base with its own prompts, which are remembered by row. Thread-safe once prepared.

    Scores one prompt at a time: a batch of prompt log-probabilities can kill an engine.
    """

    models: Models
    fitted: dict[str, FittedPrompt] = field(default_factory=dict, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    @abstractmethod
    def prompts(self, row: HeldOutRow) -> Sequence[Messages]:
        """The prompts to try, best first."""

    def answer(self, row: HeldOutRow, sampling: SamplingDefaults) -> Answer:
        return self.models.generate(BASE, self._fit(row).messages, sampling)

    def score(self, row: HeldOutRow, completion: str) -> Score | None:
        fitted = self._fit(row)
        if completion == row.reference:
            return fitted.score
        return self.models.score(BASE, fitted.messages, completion)

    def _fit(self, row: HeldOutRow) -> FittedPrompt:
        """The first prompt that fits. Raises InvalidArgument (ROW_TOO_LONG) if none does."""
        with self._lock:
            if row.row_id not in self.fitted:
                self.fitted[row.row_id] = self._find(row, self.prompts(row))
            return self.fitted[row.row_id]

    def _find(self, row: HeldOutRow, prompts: Sequence[Messages]) -> FittedPrompt:
        for place, messages in enumerate(prompts):
            try:
                return FittedPrompt(messages, place, self.models.score(BASE, messages, row.reference))
            except InvalidArgument as error:
                if error.reason not in TOO_LONG or place == len(prompts) - 1:
                    raise
        raise ValueError("a row needs at least one prompt")
