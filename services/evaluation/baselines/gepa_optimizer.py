"""Optimises instructions by gepa (Agrawal et al. 2025, "GEPA: Reflective Prompt Evolution Can Outperform Reinforcement Learning")."""

import importlib.metadata
import importlib.util
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from services.evaluation.baselines.examples import prompt_text
from services.evaluation.baselines.prompts import with_instructions
from services.evaluation.domain import BASE, TOO_LONG, HeldOutRow
from services.evaluation.ports import Models
from tailor.errors import FailedPrecondition, InvalidArgument, Reason, TailorError
from tailor.logging import get_logger
from tailor.values import SamplingDefaults

log = get_logger(__name__)

COMPONENT = "instructions"
# What the reflection model reads of a row's prompt, reference and answer, so that three rows fit a small context.
MAX_PART_CHARS = 400
SEED = 0
MAX_REFLECTION_TOKENS = 800

# Asks the reflection model.
Reflect = Callable[[str], str]


@dataclass(frozen=True)
class PromptTask:
    """Tries instructions on the base in the engine that serves. The reflection model is the base unless `ask` is another.

    Methods block, and raise Unavailable while the model does not answer.
    """

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
        """The answer after these instructions; empty if they leave no room for it."""
        try:
            return self.models.generate(BASE, with_instructions(row, instructions), self.sampling).text
        except InvalidArgument as error:
            if error.reason not in TOO_LONG:
                raise
            return ""

    def reflect(self, prompt: str) -> str:
        """The text that the reflection model writes."""
        if self.ask is not None:
            return self.ask(prompt)
        return self.models.generate(BASE, (("user", prompt),), SamplingDefaults(max_tokens=MAX_REFLECTION_TOKENS)).text


def describe() -> str:
    """The method and its version."""
    if importlib.util.find_spec("gepa") is None:
        return "gepa"
    return f"gepa {importlib.metadata.version('gepa')}"


def optimize(task: PromptTask, seed: str, rows: Sequence[HeldOutRow], max_scores: int) -> str:
    """The best instructions, starting from `seed`, after at most about `max_scores` scored rows. Blocks.

    Half of the rows are shown to the reflection model, the other half decide which instructions are best. Raises FailedPrecondition
    (NO_PROMPT_OPTIMIZER) if gepa is not installed.
    """
    if importlib.util.find_spec("gepa") is None:
        raise FailedPrecondition(
            Reason.NO_PROMPT_OPTIMIZER,
            "gepa is not installed. Install the extra `prompt` (PACKAGES=gepa in the image), or leave out optimize_prompt.",
        )
    import gepa

    shown, deciding = list(rows[::2]), list(rows[1::2]) or list(rows)
    reflection = _Reflection(task)
    result = gepa.optimize(
        seed_candidate={COMPONENT: seed},
        trainset=shown,
        valset=deciding,
        adapter=_Adapter(task),
        reflection_lm=reflection,
        max_metric_calls=max_scores,
        stop_callbacks=lambda state: reflection.error is not None,
        # Without a logger gepa prints prompts and answers.
        logger=_Silence(),
        seed=SEED,
        raise_on_exception=True,
    )
    reflection.raise_error()
    return str(result.best_candidate[COMPONENT])


class _Reflection:
    """Keeps the error of the reflection model, which gepa would drop, so that the search ends with it."""

    def __init__(self, task: PromptTask) -> None:
        self._task = task
        self.error: TailorError | None = None

    def __call__(self, prompt: object) -> str:
        try:
            return self._task.reflect(str(prompt))
        except TailorError as error:
            self.error = error
            raise

    def raise_error(self) -> None:
        """Raise the error, if there was one. A prompt that is too long for the model is FailedPrecondition: no prompt can be optimised."""
        if isinstance(self.error, InvalidArgument):
            raise FailedPrecondition(self.error.reason, self.error.message)
        if self.error is not None:
            raise self.error


class _Silence:
    """Drops gepa's messages, which quote rows."""

    def log(self, message: str, *args: Any, **kwargs: Any) -> None:
        """Drop a message."""


@dataclass(frozen=True)
class _Trace:
    row: HeldOutRow
    answer: str
    score: float


class _Adapter:
    """Gepa's view of the task."""

    propose_new_texts = None

    def __init__(self, task: PromptTask) -> None:
        self._task = task

    def evaluate(self, batch: list[HeldOutRow], candidate: dict[str, str], capture_traces: bool = False) -> Any:
        """Score each row; answer it only if the reflection model will read the answer."""
        from gepa.core.adapter import EvaluationBatch

        instructions = candidate[COMPONENT]
        scores = [self._task.score(instructions, row) for row in batch]
        if not capture_traces:
            return EvaluationBatch(outputs=[""] * len(batch), scores=scores)
        answers = [self._task.answer(instructions, row) for row in batch]
        traces = [_Trace(*parts) for parts in zip(batch, answers, scores, strict=True)]
        return EvaluationBatch(outputs=answers, scores=scores, trajectories=traces)

    def make_reflective_dataset(
        self, candidate: dict[str, str], eval_batch: Any, components_to_update: list[str]
    ) -> Mapping[str, Sequence[Mapping[str, Any]]]:
        """What the reflection model reads."""
        del candidate
        records = [_record(trace) for trace in eval_batch.trajectories]
        return dict.fromkeys(components_to_update, records)


def _record(trace: _Trace) -> dict[str, Any]:
    reference = trace.row.reference[:MAX_PART_CHARS]
    return {
        "Inputs": prompt_text(trace.row)[:MAX_PART_CHARS],
        "Generated Outputs": trace.answer[:MAX_PART_CHARS],
        "Feedback": f"The house's own answer, to which the model gives {trace.score:.3f} per token: {reference}",
    }
