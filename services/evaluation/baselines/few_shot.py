"""The base with house examples and guidelines in its prompt: what tuning must beat."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from services.evaluation.baselines.examples import METHOD, Examples, choose_examples
from services.evaluation.baselines.fitting import PromptedBase
from services.evaluation.baselines.prompts import with_examples
from services.evaluation.baselines.train_data import TrainData
from services.evaluation.domain import FEW_SHOT, HeldOutRow
from services.evaluation.ports import Messages


@dataclass
class FewShotModel(PromptedBase):
    """The base with the `count` most similar train rows of the same task as earlier turns. Thread-safe.

    A row gets as many of them as leave room for an answer as long as its reference; the least similar go first.
    """

    base: str
    data: TrainData
    rows: Sequence[HeldOutRow]
    count: int
    guidelines: str
    _examples: Examples = field(default_factory=dict, init=False)

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
        with self.data.open() as batches:
            self._examples = choose_examples(batches, self.rows, self.count, self.data.erased)

    @property
    def notes(self) -> Mapping[str, Any]:
        """The number of rows by the number of their examples, and the documents of all examples."""
        used = [max(0, len(self._examples[row_id]) - prompt.place) for row_id, prompt in self.fitted.items()]
        documents = {name for examples in self._examples.values() for row in examples for name in row.document_ids}
        return {
            "rows by examples": {str(number): used.count(number) for number in sorted(set(used))},
            "document_ids": sorted(documents),
        }

    def prompts(self, row: HeldOutRow) -> list[Messages]:
        """With all examples, with ever fewer, with guidelines only, or the row's own prompt."""
        examples = self._examples.get(row.row_id, ())
        counts = range(len(examples), -1, -1)
        return [*(with_examples(row, self.guidelines, examples[:number]) for number in counts), row.messages]
