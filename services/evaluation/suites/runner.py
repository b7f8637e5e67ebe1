"""Runs the suites of a specialist on one candidate and the base."""

import time
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from services.evaluation import suites
from services.evaluation.domain import BASE, CANDIDATE, HeldOutSet, MetricFigures, ReportData
from services.evaluation.ports import DatasetProbes, EvaluatedModel, ModelResults
from services.evaluation.suites.asker import ModelAsker, StoredAsker
from services.evaluation.suites.estimates import summarise
from services.evaluation.suites.ports import SuiteAsker
from services.evaluation.suites.suite import SuiteContext, SuiteResult
from tailor.document_scores import DocumentScore
from tailor.errors import FailedPrecondition
from tailor.logging import get_logger
from tailor.storage.ref import Ref

log = get_logger(__name__)

# Suites whose questions come from this package; the others ask about documents.
FIXED = ("forgetting", "safety")
# Train prompts and quiz questions that are asked if the specialist sets no limit.
MAX_PROMPTS, MAX_QUESTIONS = 48, 200


@dataclass(frozen=True)
class SuiteFigures:
    """The figures of all suites, why others were not measured, the knowledge of each document, details, and seconds by suite."""

    figures: tuple[MetricFigures, ...] = ()
    not_measured: Mapping[str, str] = field(default_factory=dict)
    documents: tuple[DocumentScore, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class SuiteRunner:
    """Runs suites one after another. Blocks; raises Unavailable while a dependency does not answer."""

    probes: DatasetProbes
    results: ModelResults
    concurrency: int = 8
    erased: Container[str] = frozenset()
    sleep: Callable[[float], None] | None = None

    def run(self, data: ReportData, models: Sequence[EvaluatedModel], manifests: Sequence[Ref]) -> SuiteFigures:
        """Run the suites that the specialist names, or all. `manifests` are of the adapter's dataset and of those of earlier stages."""
        terms, evaluation_id = data.terms, data.evaluation.evaluation_id
        asked = {model.name: model for model in models if model.name in (BASE, CANDIDATE)}
        plain = ModelAsker(asked, terms.sampling, concurrency=self.concurrency, sleep=self.sleep)
        stored = StoredAsker(plain, asked, terms.sampling, self.results, evaluation_id)
        names = [name for name in suites.NAMES if not terms.evaluation.suites or name in terms.evaluation.suites]
        context = self._context(names, data, manifests)
        total = SuiteFigures()
        for name in names:
            started = time.monotonic()
            result, reason = _run(name, stored if name in FIXED else plain, context)
            seconds = time.monotonic() - started
            log.info("suite measured", evaluation_id=evaluation_id, suite=name, seconds=round(seconds, 1))
            total = _add(total, name, result, reason, seconds)
        return total

    def _context(self, names: Sequence[str], data: ReportData, manifests: Sequence[Ref]) -> SuiteContext:
        """What the suites need of the dataset. Nothing is read for suites that do not run."""
        limit, held_out = data.terms.evaluation.max_suite_items, data.held_out
        context = SuiteContext(max_items=limit, system_prompt=_system_prompt(held_out))
        manifest = self.probes.choose(manifests)
        if "knowledge" in names:
            questions = self.probes.quiz(manifest, limit or MAX_QUESTIONS)
            context = replace(context, questions=[q for q in questions if q.document_id not in self.erased])
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
        (*total.documents, *result.documents),
        {**total.details, **({name: result.details} if result.details else {})},
        {**total.seconds, name: seconds},
    )
