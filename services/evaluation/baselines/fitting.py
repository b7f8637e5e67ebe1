"""Finds the first of several prompts of a row that the context holds, together with an answer as long as the reference."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

from services.evaluation.baselines.prompts import Messages
from services.evaluation.domain import BASE, TOO_LONG, HeldOutRow, Score
from services.evaluation.ports import Models
from tailor.errors import InvalidArgument


@dataclass(frozen=True)
class FittedPrompt:
    """A prompt, its place among those that were tried, and the base's score of the row's reference after it."""

    messages: Messages
    place: int
    score: Score


@dataclass
class PromptFitter:
    """Remembers the prompt of each row. Thread-safe.

    Scores one prompt at a time: a batch of prompt log-probabilities can kill an engine.
    """

    models: Models
    fitted: dict[str, FittedPrompt] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def fit(self, row: HeldOutRow, prompts: Sequence[Messages]) -> FittedPrompt:
        """The first prompt that fits. Raises InvalidArgument (ROW_TOO_LONG) if none does."""
        with self._lock:
            if row.row_id not in self.fitted:
                self.fitted[row.row_id] = self._find(row, prompts)
            return self.fitted[row.row_id]

    def _find(self, row: HeldOutRow, prompts: Sequence[Messages]) -> FittedPrompt:
        for place, messages in enumerate(prompts):
            try:
                return FittedPrompt(messages, place, self.models.score(BASE, messages, row.reference))
            except InvalidArgument as error:
                if error.reason not in TOO_LONG or place == len(prompts) - 1:
                    raise
        raise ValueError("a row needs at least one prompt")
