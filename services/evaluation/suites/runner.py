"""Runs the suites of a specialist on one candidate and the base."""

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass, field, replace
from typing import Any

from services.evaluation import suites
from services.evaluation.adapters.probes import StoredProbes
from services.evaluation.adapters.sql import SqlModelResults
from services.evaluation.domain import (
    BASE,
    CANDIDATE,
    Answer,
    Estimate,
    HeldOutRow,
    HeldOutSet,
    MetricFigures,
    ModelResult,
    ReportData,
    Score,
)
from services.evaluation.ports import EvaluatedModel, Messages, SuiteAsker
from services.evaluation.served_models import call
from services.evaluation.statistics import estimate, estimate_gain
from services.evaluation.suites.suite import SuiteContext, SuiteMeasure, SuiteResult
from tailor.errors import FailedPrecondition, Reason
from tailor.jobs import HeldJob
from tailor.logging import get_logger
from tailor.storage.ref import Ref
from tailor.values import SamplingDefaults, Thinking

log = get_logger(__name__)

# Suites whose questions come from this package; the others ask about documents.
FIXED = ("forgetting", "safety")
# Train prompts that are asked if the specialist sets no limit.
MAX_PROMPTS = 48


class ModelAsker(SuiteAsker):
    """Asks with the specialist's sampling, as callers get it, in parallel so that the engine can batch the questions.

    Inference splits thoughts off, so that answers have none.

    Raises Unavailable while a model does not answer.
    """

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
        if self._sampling.thinking is not Thinking.OFF:
            # An item's limit is that of its answer. A thought may be as long as callers' answers, 0 for what the context leaves.
            max_tokens = self._sampling.max_tokens and self._sampling.max_tokens + max_tokens
        sampling = replace(self._sampling, max_tokens=max_tokens)
        asked = self._models[model]
        with ThreadPoolExecutor(self._concurrency, thread_name_prefix="suite") as pool:
            answers = pool.map(lambda prompt: call(lambda: asked.answer(_row(prompt), sampling), self._sleep), prompts)
            return [answer.text for answer in answers]

    def score(self, model: str, pairs: Sequence[tuple[Messages, str]]) -> list[Score]:
        """One at a time: a batch of prompt log-probabilities can kill an engine."""
        return [self._score(self._models[model], prompt, completion) for prompt, completion in pairs]

    def _score(self, model: EvaluatedModel, prompt: Messages, completion: str) -> Score:
        score = call(lambda: model.score(_row(prompt), completion), self._sleep)
        if score is None:
            raise FailedPrecondition(Reason.NOTHING_TO_MEASURE, f"The model {model.name} has no log-probabilities.")
        return score


class StoredAsker(SuiteAsker):
    """Stores every result, so that an interrupted evaluation continues, and the base is asked once for all evaluations.

    Only for questions without content of documents: nothing deletes these results when a document is erased.
    """

    def __init__(
        self,
        asker: SuiteAsker,
        models: Mapping[str, EvaluatedModel],
        sampling: SamplingDefaults,
        results: SqlModelResults,
        job: HeldJob,
    ) -> None:
        self._asker = asker
        self._models = models
        self._sampling = sampling
        self._results = results
        self._job = job

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
        result = self._results.find(name, key, self._job.key if model == CANDIDATE else "")
        if result is None:
            result = ask()
            self._results.add(self._job, name, key, result)
        return result


def _row(prompt: Messages) -> HeldOutRow:
    """The prompt as a row, which models are asked with."""
    return HeldOutRow(_key(prompt), "suite", (), prompt, "")


def _key(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


@dataclass(frozen=True)
class SuiteFigures:
    """The figures of all suites, why others were not measured, details, and seconds by suite."""

    figures: tuple[MetricFigures, ...] = ()
    not_measured: Mapping[str, str] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class SuiteRunner:
    """Runs suites one after another. Blocks; raises Unavailable while a dependency does not answer."""

    probes: StoredProbes
    results: SqlModelResults
    concurrency: int = 8
    sleep: Callable[[float], None] | None = None

    def run(
        self, job: HeldJob, data: ReportData, models: Sequence[EvaluatedModel], manifests: Sequence[Ref]
    ) -> SuiteFigures:
        """Run the suites that the specialist names, or all. `manifests` are of the adapter's dataset and of those of earlier stages."""
        terms = data.terms
        asked = {model.name: model for model in models if model.name in (BASE, CANDIDATE)}
        plain = ModelAsker(asked, terms.sampling, concurrency=self.concurrency, sleep=self.sleep)
        stored = StoredAsker(plain, asked, terms.sampling, self.results, job)
        names = [name for name in suites.NAMES if not terms.evaluation.suites or name in terms.evaluation.suites]
        context = self._context(names, data, manifests)
        total = SuiteFigures()
        for name in names:
            started = time.monotonic()
            result, reason = _run(name, stored if name in FIXED else plain, context)
            seconds = time.monotonic() - started
            log.info("suite measured", evaluation_id=job.key, suite=name, seconds=round(seconds, 1))
            total = _add(total, name, result, reason, seconds)
        return total

    def _context(self, names: Sequence[str], data: ReportData, manifests: Sequence[Ref]) -> SuiteContext:
        """What the suites need of the dataset. Nothing is read for suites that do not run."""
        limit, held_out = data.terms.evaluation.max_suite_items, data.held_out
        context = SuiteContext(max_items=limit, system_prompt=_system_prompt(held_out))
        manifest = self.probes.choose(manifests)
        if "memorisation" not in names:
            return context
        answered = [row.messages for row in held_out.rows if row.row_id in held_out.answered]
        answers = {
            model: [answer.text for answer in data.results[model].answers if answer is not None]
            for model in (BASE, CANDIDATE)
        }
        return replace(
            context,
            held_out_prompts=answered,
            answers=answers,
            train_prompts=self.probes.train_prompts(manifest, limit or MAX_PROMPTS),
            planted=self.probes.planted_secrets(manifest),
            count_true_values=lambda texts, known: self.probes.count_true_values(manifest, texts, known),
        )


def _system_prompt(held_out: HeldOutSet) -> str:
    """The system prompt that callers of the specialist get: that of its rows. Empty if they differ."""
    prompts = {row.messages[0][1] if row.messages[0][0] == "system" else "" for row in held_out.rows}
    return prompts.pop() if len(prompts) == 1 else ""


def _run(name: str, ask: SuiteAsker, context: SuiteContext) -> tuple[SuiteResult, str]:
    """The result, or the reason why the suite could not be measured."""
    try:
        return suites.load(name)(ask, context), ""
    except FailedPrecondition as error:
        log.warning("suite not measured", suite=name, reason=error.reason)
        return SuiteResult(), str(error)


def _add(total: SuiteFigures, name: str, result: SuiteResult, reason: str, seconds: float) -> SuiteFigures:
    return SuiteFigures(
        (*total.figures, *summarise(result)),
        {**total.not_measured, **result.not_measured, **({name: reason} if reason else {})},
        {**total.details, **({name: result.details} if result.details else {})},
        {**total.seconds, name: seconds},
    )


def summarise(result: SuiteResult) -> Iterator[MetricFigures]:
    """The estimates of a suite's measures, each item by itself, and its counts, which have no spread."""
    for name, measure in result.measures.items():
        yield _estimate(name, measure)
    for name, counts in result.counts.items():
        models = {model: Estimate(count, count, count, 1) for model, count in counts.items()}
        gain = float(counts[BASE] - counts[CANDIDATE])
        yield MetricFigures(name, True, models, {BASE: Estimate(gain, gain, gain, 1)})


def _estimate(name: str, measure: SuiteMeasure) -> MetricFigures:
    candidate = measure.models[CANDIDATE]
    clusters = range(len(candidate.statistics))
    gain = estimate_gain(candidate, measure.models[BASE], clusters, lower_is_better=measure.lower_is_better)
    models = {model: estimate(values, clusters) for model, values in measure.models.items()}
    return MetricFigures(name, measure.lower_is_better, models, {BASE: gain})
