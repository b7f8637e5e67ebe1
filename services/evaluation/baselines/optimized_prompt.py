"""The base with instructions that an optimiser wrote: what prompting alone can reach."""

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from services.evaluation.baselines.examples import is_erased
from services.evaluation.baselines.fitting import FittedPrompt, PromptFitter
from services.evaluation.baselines.prompts import with_instructions
from services.evaluation.baselines.train_data import TrainData
from services.evaluation.domain import BASE, PROMPT, TOO_LONG, Answer, HeldOutRow, OptimizedPrompt, Score, choose_rows
from services.evaluation.ports import EvaluatedModel, Models, PromptOptimizer, PromptStore, PromptTask, TrainSplit
from tailor.errors import FailedPrecondition, InvalidArgument, Reason
from tailor.logging import get_logger
from tailor.words import SamplingDefaults

log = get_logger(__name__)

# Where the search starts if the specialist has no guidelines.
SEED = "Answer as the house would: in its style, complete, and only with facts of the request."
MAX_REFLECTION_TOKENS = 800

# Asks the reflection model.
Reflect = Callable[[str], str]


@dataclass(frozen=True)
class PromptBudget:
    """Train rows that instructions are tried on, and how many times a row is scored in all."""

    rows: int = 24
    max_scores: int = 150


@dataclass(frozen=True)
class ServedTask(PromptTask):
    """Instructions for the base in the engine that serves. The reflection model is the base unless `ask` is another."""

    models: Models
    sampling: SamplingDefaults
    ask: Reflect | None = None

    def score(self, instructions: str, row: HeldOutRow) -> float:
        """The geometric mean of the probabilities of the reference's tokens; 0 if the instructions leave no room for it."""
        try:
            score = self.models.score(BASE, with_instructions(row, instructions), row.reference)
        except InvalidArgument as error:
            if error.reason not in TOO_LONG:
                raise
            return 0.0
        return math.exp(score.log_probability / max(1, score.tokens))

    def answer(self, instructions: str, row: HeldOutRow) -> str:
        try:
            return self.models.generate(BASE, with_instructions(row, instructions), self.sampling).text
        except InvalidArgument as error:
            if error.reason not in TOO_LONG:
                raise
            return ""

    def reflect(self, prompt: str) -> str:
        if self.ask is not None:
            return self.ask(prompt)
        return self.models.generate(BASE, (("user", prompt),), SamplingDefaults(max_tokens=MAX_REFLECTION_TOKENS)).text


@dataclass
class OptimizedPromptModel(EvaluatedModel):
    """The base with optimised instructions, which are stored for later evaluations on the same dataset. Thread-safe once prepared."""

    models: Models
    base: str
    data: TrainData
    seed: str
    task: PromptTask
    reflection: str
    optimizer: PromptOptimizer
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
        left_out = {"rows without room for the instructions": bare} if bare else {}
        return {"instructions": self.instructions, "document_ids": list(documents), **left_out}

    def prepare(self) -> None:
        """Search the instructions unless they are stored. Raises FailedPrecondition (NO_TRAIN_ROWS) without rows to try them on."""
        if self._prompt is None:
            self._prompt = self.store.find(self._digest) or self._search()

    def _search(self) -> OptimizedPrompt:
        seed = self.seed or SEED
        with self.data.open() as split:
            rows = choose_trial_rows(split, self.data, self.budget.rows)
        instructions = self.optimizer.optimize(self.task, seed, rows, self.budget.max_scores)
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
        parts = [self.base, self.data.digests, self.optimizer.name, self.reflection, self.seed, budget]
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
