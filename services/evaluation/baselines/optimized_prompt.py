"""The base with instructions that an optimiser wrote: what prompting alone can reach."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from services.evaluation.baselines import gepa_optimizer
from services.evaluation.baselines.examples import is_erased
from services.evaluation.baselines.fitting import FittedPrompt, PromptFitter
from services.evaluation.baselines.gepa_optimizer import PromptTask
from services.evaluation.baselines.prompt_store import PromptStore
from services.evaluation.baselines.prompts import with_instructions
from services.evaluation.baselines.train_data import TrainData
from services.evaluation.domain import BASE, PROMPT, Answer, HeldOutRow, OptimizedPrompt, Score, choose_rows
from services.evaluation.ports import EvaluatedModel, Models, TrainSplit
from tailor.errors import FailedPrecondition, Reason
from tailor.logging import get_logger
from tailor.values import SamplingDefaults

log = get_logger(__name__)

# Where the search starts if the specialist has no guidelines.
SEED = "Answer as the house would: in its style, complete, and only with facts of the request."


@dataclass(frozen=True)
class PromptBudget:
    """Train rows that instructions are tried on, and how many times a row is scored in all."""

    rows: int = 24
    max_scores: int = 150


@dataclass
class OptimizedPromptModel(EvaluatedModel):
    """The base with optimised instructions, which are stored for later evaluations on the same dataset. Thread-safe once prepared."""

    models: Models
    base: str
    data: TrainData
    seed: str
    task: PromptTask
    reflection: str
    store: PromptStore
    budget: PromptBudget = field(default_factory=PromptBudget)
    _prompt: OptimizedPrompt | None = field(default=None, init=False)
    _fitter: PromptFitter = field(init=False)

    def __post_init__(self) -> None:
        self._fitter = PromptFitter(self.models)

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
        bare = sum(prompt.place > 0 for prompt in self._fitter.fitted.values())
        skipped = {"rows without room for the instructions": bare} if bare else {}
        return {"instructions": self.instructions, "document_ids": list(documents), **skipped}

    def prepare(self) -> None:
        """Search the instructions unless they are stored. Raises FailedPrecondition (NO_TRAIN_ROWS) without rows to try them on."""
        if self._prompt is None:
            self._prompt = self.store.find(self._digest) or self._search()

    def _search(self) -> OptimizedPrompt:
        seed = self.seed or SEED
        with self.data.open() as split:
            rows = choose_trial_rows(split, self.data, self.budget.rows)
        instructions = gepa_optimizer.optimize(self.task, seed, rows, self.budget.max_scores)
        optimized = OptimizedPrompt(instructions, tuple(sorted({name for row in rows for name in row.document_ids})))
        self.store.save(self._digest, optimized)
        log.info("prompt optimised", base=self.base, rows=len(rows), changed=instructions != seed)
        return optimized

    def answer(self, row: HeldOutRow, sampling: SamplingDefaults) -> Answer:
        return self.models.generate(BASE, self._fit(row).messages, sampling)

    def score(self, row: HeldOutRow, completion: str) -> Score | None:
        prompt = self._fit(row)
        if completion == row.reference:
            return prompt.score
        return self.models.score(BASE, prompt.messages, completion)

    def _fit(self, row: HeldOutRow) -> FittedPrompt:
        """With the instructions, or the row's own prompt if they leave no room for an answer."""
        return self._fitter.fit(row, [with_instructions(row, self.instructions), row.messages])

    @property
    def _digest(self) -> str:
        budget = [self.budget.rows, self.budget.max_scores]
        parts = [self.base, self.data.digests, gepa_optimizer.describe(), self.reflection, self.seed, budget]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def choose_trial_rows(split: TrainSplit, data: TrainData, limit: int) -> list[HeldOutRow]:
    """At most `limit` train rows, evenly from all tasks and always the same ones, ordered by id.

    Raises FailedPrecondition (NO_TRAIN_ROWS) without any.
    """

    def usable() -> Iterator[HeldOutRow]:
        return (row for batch in split.batches() for row in batch if not is_erased(row, data.erased))

    chosen = set(choose_rows(((row.row_id, row.task) for row in usable()), limit))
    rows: Sequence[HeldOutRow] = [row for row in usable() if row.row_id in chosen]
    if not rows:
        raise FailedPrecondition(
            Reason.NO_TRAIN_ROWS, "The dataset has no train rows that instructions can be tried on."
        )
    return sorted(rows, key=lambda row: row.row_id)
