"""The base with house examples and guidelines in its prompt: what tuning must beat."""

import hashlib
import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from services.evaluation.baselines.examples import METHOD, Examples, choose_examples
from services.evaluation.baselines.prompts import Messages, with_examples
from services.evaluation.baselines.train_data import TrainData
from services.evaluation.domain import BASE, FEW_SHOT, Answer, HeldOutRow, Score
from services.evaluation.ports import EvaluatedModel, Models
from tailor.errors import InvalidArgument, Reason
from tailor.words import Sampling


@dataclass
class _Fitted:
    """The prompt of one row, the number of its examples, and the score of the row's reference after it."""

    messages: Messages
    examples: int
    score: Score


@dataclass
class FewShotModel(EvaluatedModel):
    """The base with the `count` most similar train rows of the same task as earlier turns. Thread-safe.

    A row gets as many of them as leave room for an answer as long as its reference; the least similar go first.
    """

    models: Models
    base: str
    data: TrainData
    rows: Sequence[HeldOutRow]
    count: int
    guidelines: str
    _examples: Examples = field(default_factory=dict)
    _fitted: dict[str, _Fitted] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def name(self) -> str:
        return FEW_SHOT

    @property
    def key(self) -> str:
        parts = [self.base, self.data.digests, METHOD, self.count, self.guidelines]
        return f"{FEW_SHOT}:{hashlib.sha256(json.dumps(parts).encode()).hexdigest()}"

    def prepare(self) -> None:
        """Choose the examples."""
        if self._examples:
            return
        with self.data.open() as split:
            self._examples = choose_examples(split, self.rows, self.count, self.data.erased)

    def answer(self, row: HeldOutRow, sampling: Sampling) -> Answer:
        return self.models.generate(BASE, self._fit(row).messages, sampling)

    def score(self, row: HeldOutRow, completion: str) -> Score | None:
        fitted = self._fit(row)
        if completion == row.reference:
            return fitted.score
        return self.models.score(BASE, fitted.messages, completion)

    @property
    def notes(self) -> Mapping[str, Any]:
        """The number of rows by the number of their examples, and the documents of all examples."""
        used = [fitted.examples for fitted in self._fitted.values()]
        documents = {name for examples in self._examples.values() for row in examples for name in row.document_ids}
        return {
            "rows by examples": {str(number): used.count(number) for number in sorted(set(used))},
            "document_ids": sorted(documents),
        }

    def _fit(self, row: HeldOutRow) -> _Fitted:
        """Locked, because prompts are scored one at a time: a batch of prompt log-probabilities can kill an engine."""
        with self._lock:
            if row.row_id not in self._fitted:
                self._fitted[row.row_id] = self._find_room(row)
            return self._fitted[row.row_id]

    def _find_room(self, row: HeldOutRow) -> _Fitted:
        """Raises InvalidArgument (ROW_TOO_LONG) if the row does not even fit without guidelines and examples."""
        examples = self._examples.get(row.row_id, ())
        prompts = [
            (number, with_examples(row, self.guidelines, examples[:number])) for number in range(len(examples), -1, -1)
        ]
        for number, messages in (*prompts, (0, row.messages)):
            try:
                score = self.models.score(BASE, messages, row.reference)
            except InvalidArgument as error:
                if error.reason not in (Reason.ROW_TOO_LONG, Reason.PROMPT_TOO_LONG):
                    raise
                too_long = error
            else:
                return _Fitted(messages, number, score)
        raise too_long
