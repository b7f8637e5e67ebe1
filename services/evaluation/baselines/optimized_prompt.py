"""The base with instructions that an optimiser wrote: what prompting alone can reach."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from services.evaluation.baselines import gepa_optimizer
from services.evaluation.baselines.examples import is_erased
from services.evaluation.baselines.fitting import PromptedBase
from services.evaluation.baselines.gepa_optimizer import PromptTask
from services.evaluation.baselines.prompt_store import PromptStore
from services.evaluation.baselines.prompts import with_instructions
from services.evaluation.baselines.train_data import TrainData
from services.evaluation.domain import PROMPT, HeldOutRow, OptimizedPrompt, choose_rows
from services.evaluation.ports import Batches, Messages
from tailor.errors import FailedPrecondition, Reason
from tailor.logging import get_logger

log = get_logger(__name__)

# Where the search starts if the specialist has no guidelines.
SEED = "Answer as the house would: in its style, complete, and only with facts of the request."


@dataclass(frozen=True)
class PromptBudget:
    """Train rows that instructions are tried on, and how many times a row is scored in all."""

    rows: int = 24
    max_scores: int = 150


@dataclass
class OptimizedPromptModel(PromptedBase):
    """The base with optimised instructions, which are stored for later evaluations on the same dataset. Thread-safe once prepared."""

    base: str
    data: TrainData
    seed: str
    task: PromptTask
    reflection: str
    store: PromptStore
    budget: PromptBudget = field(default_factory=PromptBudget)
    _prompt: OptimizedPrompt | None = field(default=None, init=False)

    @property
    def name(self) -> str:
        return PROMPT

    @property
    def key(self) -> str:
        return f"{PROMPT}:{self._digest}"

    @property
    def instructions(self) -> str:
        """The optimised instructions; empty before `prepare`."""
        return self._prompt.instructions if self._prompt else ""

    @property
    def notes(self) -> Mapping[str, Any]:
        documents = self._prompt.document_ids if self._prompt else ()
        bare = sum(prompt.place > 0 for prompt in self.fitted.values())
        skipped = {"rows without room for the instructions": bare} if bare else {}
        return {"instructions": self.instructions, "document_ids": list(documents), **skipped}

    def prepare(self) -> None:
        """Search the instructions unless they are stored. Raises FailedPrecondition (NO_TRAIN_ROWS) without rows to try them on."""
        if self._prompt is None:
            self._prompt = self.store.find(self._digest) or self._search()

    def _search(self) -> OptimizedPrompt:
        seed = self.seed or SEED
        with self.data.open() as batches:
            rows = choose_trial_rows(batches, self.data, self.budget.rows)
        instructions = gepa_optimizer.optimize(self.task, seed, rows, self.budget.max_scores)
        optimized = OptimizedPrompt(instructions, tuple(sorted({name for row in rows for name in row.document_ids})))
        self.store.save(self._digest, optimized)
        log.info("prompt optimised", base=self.base, rows=len(rows), changed=instructions != seed)
        return optimized

    def prompts(self, row: HeldOutRow) -> list[Messages]:
        """With the instructions, or the row's own prompt if they leave no room for an answer."""
        return [with_instructions(row, self.instructions), row.messages]

    @property
    def _digest(self) -> str:
        budget = [self.budget.rows, self.budget.max_scores]
        parts = [self.base, self.data.digests, gepa_optimizer.describe(), self.reflection, self.seed, budget]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def choose_trial_rows(batches: Batches, data: TrainData, limit: int) -> list[HeldOutRow]:
    """At most `limit` train rows, evenly from all tasks and always the same ones, ordered by id.

    Raises FailedPrecondition (NO_TRAIN_ROWS) without any.
    """

    def usable() -> Iterator[HeldOutRow]:
        return (row for batch in batches() for row in batch if not is_erased(row, data.erased))

    chosen = set(choose_rows(((row.row_id, row.task) for row in usable()), limit))
    rows: Sequence[HeldOutRow] = [row for row in usable() if row.row_id in chosen]
    if not rows:
        raise FailedPrecondition(
            Reason.NO_TRAIN_ROWS, "The dataset has no train rows that instructions can be tried on."
        )
    return sorted(rows, key=lambda row: row.row_id)
