"""Asks the models of one evaluation, several questions in parallel so that the engine can batch them, and stores what may be reused."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, replace
from typing import TypeVar

from services.evaluation.domain import CANDIDATE, Answer, HeldOutRow, ModelResult, Score
from services.evaluation.ports import EvaluatedModel, ModelResults
from services.evaluation.suites.ports import Messages, SuiteAsker
from tailor.errors import FailedPrecondition, NotFound, Reason, Unavailable
from tailor.retry import retry
from tailor.words import SamplingDefaults

T = TypeVar("T")

CALL_ATTEMPTS = 5


class ModelAsker(SuiteAsker):
    """Asks with the specialist's sampling, as callers get it. Raises Unavailable while a model does not answer."""

    def __init__(
        self,
        models: Mapping[str, EvaluatedModel],
        sampling: SamplingDefaults,
        *,
        concurrency: int,
        sleep: Callable[[float], None] | None = None,
    ) -> None:
        self._models = models
        self._sampling = sampling
        self._concurrency = concurrency
        self._sleep = sleep

    def answer(self, model: str, prompts: Sequence[Messages], max_tokens: int) -> list[str]:
        sampling = replace(self._sampling, max_tokens=max_tokens)
        asked = self._models[model]
        with ThreadPoolExecutor(self._concurrency, thread_name_prefix="suite") as pool:
            answers = pool.map(lambda prompt: self._call(lambda: asked.answer(_row(prompt), sampling)), prompts)
            return [answer.text for answer in answers]

    def score(self, model: str, pairs: Sequence[tuple[Messages, str]]) -> list[Score]:
        """One at a time: a batch of prompt log-probabilities can kill an engine."""
        return [self._score(self._models[model], prompt, completion) for prompt, completion in pairs]

    def _score(self, model: EvaluatedModel, prompt: Messages, completion: str) -> Score:
        score = self._call(lambda: model.score(_row(prompt), completion))
        if score is None:
            raise FailedPrecondition(Reason.NOTHING_TO_MEASURE, f"The model {model.name} has no log-probabilities.")
        return score

    def _call(self, request: Callable[[], T]) -> T:
        try:
            return retry(request, attempts=CALL_ATTEMPTS, initial_seconds=0.5, max_seconds=4.0, sleep=self._sleep)
        except NotFound:
            # Inference has restarted since the candidate was loaded.
            raise Unavailable(Reason.CANDIDATE_LOST, "Inference has unloaded the candidate.") from None


class StoredAsker(SuiteAsker):
    """Stores every result, so that an interrupted evaluation continues, and the base is asked once for all evaluations.

    Only for questions without content of documents: nothing deletes these results when a document is erased.
    """

    def __init__(
        self,
        asker: SuiteAsker,
        models: Mapping[str, EvaluatedModel],
        sampling: SamplingDefaults,
        results: ModelResults,
        evaluation_id: str,
    ) -> None:
        self._asker = asker
        self._models = models
        self._sampling = sampling
        self._results = results
        self._evaluation_id = evaluation_id

    def answer(self, model: str, prompts: Sequence[Messages], max_tokens: int) -> list[str]:
        key = _key("answer", max_tokens, astuple(self._sampling), prompts)

        def ask() -> ModelResult:
            answers = tuple(map(Answer, self._asker.answer(model, prompts, max_tokens)))
            return ModelResult(answers, (None,) * len(answers))

        return [answer.text for answer in self._stored(model, key, ask).answers if answer is not None]

    def score(self, model: str, pairs: Sequence[tuple[Messages, str]]) -> list[Score]:
        def ask() -> ModelResult:
            scores = tuple(self._asker.score(model, pairs))
            return ModelResult((None,) * len(scores), scores)

        return [score for score in self._stored(model, _key("score", pairs), ask).scores if score is not None]

    def _stored(self, model: str, key: str, ask: Callable[[], ModelResult]) -> ModelResult:
        name = self._models[model].key
        result = self._results.find(name, key, self._evaluation_id if model == CANDIDATE else "")
        if result is None:
            result = ask()
            self._results.add(self._evaluation_id, name, key, result)
        return result


def _row(prompt: Messages) -> HeldOutRow:
    """The prompt as a row, which models are asked with."""
    return HeldOutRow(_key(prompt), "suite", (), prompt, "")


def _key(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
