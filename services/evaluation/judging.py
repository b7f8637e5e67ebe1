"""The judge model of one evaluation: never the candidate, asked each question once, and only as good as it agrees with the experts."""

import json
import threading
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Any

from services.evaluation.adapters.rows import StoredHeldOutRows
from services.evaluation.adapters.sql import SqlArtifacts
from services.evaluation.domain import CANDIDATE, Adapter, Agreement, MetricFigures, SpecialistTerms
from services.evaluation.figures import MeasuredFigures, fixed_value
from services.evaluation.judge.agreement import MAX_PAIRS, measure_agreement
from services.evaluation.judge.prompts import DEFAULT_CRITERIA, Rules
from services.evaluation.metrics import ASKS_JUDGE, JUDGED
from services.evaluation.ports import JudgeModel
from tailor.errors import FailedPrecondition, Reason
from tailor.logging import get_logger
from tailor.metric_kinds import JudgeParameters, parse_parameters
from tailor.rows import Rows
from tailor.values import MetricDefinition

log = get_logger(__name__)

Reply = Mapping[str, Any] | None

UNKNOWN = Agreement(None, 0)
RUBRIC, AGREEMENT = "rubric", "agreement"


@dataclass(frozen=True)
class Judging:
    """The judge model, and its agreement with the experts by metric. `opinions` are the metrics that count only as far as it agrees."""

    judge: JudgeModel | None = None
    agreements: Mapping[str, Agreement] = field(default_factory=dict)
    opinions: Container[str] = frozenset()

    def apply(self, figures: MeasuredFigures, minimum: float) -> MeasuredFigures:
        """The figures with the agreement next to each score of the judge model. Opinions without enough are in `not_measured` too."""
        not_measured = dict(figures.not_measured)
        metrics: list[MetricFigures] = []
        for entry in figures.metrics:
            metrics.append(entry)
            agreement = self.agreements.get(entry.metric)
            if agreement is None:
                continue
            if agreement.kappa is not None:
                shown = fixed_value(f"{entry.metric}.{AGREEMENT}", agreement.kappa)
                candidate = replace(shown.models[CANDIDATE], rows=agreement.pairs)
                metrics.append(replace(shown, models={CANDIDATE: candidate}))
            if entry.metric in self.opinions and (shortfall := agreement.shortfall(minimum)):
                not_measured[entry.metric] = shortfall
        return replace(figures, metrics=tuple(metrics), not_measured=not_measured)


@dataclass(frozen=True)
class JudgeBench:
    """Prepares the judge model for evaluations. `erased` holds the ids of erased documents."""

    artifacts: SqlArtifacts
    rows: StoredHeldOutRows
    agreements: Rows[Agreement]
    judge: JudgeModel | None = None
    erased: Container[str] = frozenset()
    concurrency: int = 4

    def prepare(self, adapter: Adapter, terms: SpecialistTerms) -> Judging:
        """Measure the agreement, unless it is known. Blocks; raises Unavailable while the model does not answer."""
        if self.judge is None:
            return Judging()
        if is_candidate(self.judge.name, adapter):
            return Judging(RefusedJudge(self.judge.name))
        judge = RememberingJudge(self.judge)
        judged = [metric for metric in terms.metrics if metric.kind in ASKS_JUDGE]
        modes = {metric.name: _mode(metric) for metric in judged}
        by_mode = {mode: self._agreement(judge, adapter.specialist, terms, mode) for mode in set(modes.values())}
        opinions = frozenset(metric.name for metric in judged if metric.kind in JUDGED)
        return Judging(judge, {name: by_mode[mode] for name, mode in modes.items()}, opinions)

    def _agreement(self, judge: JudgeModel, specialist: str, terms: SpecialistTerms, mode: str) -> Agreement:
        ranked = self.artifacts.datasets.newest(ranked_for=specialist)
        if ranked is None:
            return UNKNOWN
        rules = Rules(tuple(terms.evaluation.criteria) or DEFAULT_CRITERIA, terms.evaluation.guidelines)
        key = sha256(repr((judge.name, ranked.digest, mode, rules)).encode()).hexdigest()
        known = self.agreements.find(key=key)
        if known is not None:
            return known
        pairs = [
            pair
            for pair in self.rows.ranked_pairs(ranked.manifest, MAX_PAIRS)
            if not any(document_id in self.erased for document_id in pair.document_ids)
        ]
        agreement = measure_agreement(judge, pairs, rules, mode=mode, concurrency=self.concurrency)
        self.agreements.add(agreement, key=key)
        log.info("judge compared", specialist=specialist, mode=mode, pairs=agreement.pairs, kappa=agreement.kappa)
        return agreement


def is_candidate(judge_name: str, adapter: Adapter) -> bool:
    """True if the judge model is an adapter of this installation, or the name that the candidate would get."""
    return judge_name == adapter.specialist or judge_name.startswith("adapter:")


def _mode(metric: MetricDefinition) -> str:
    """How the agreement is measured: as the metric judges. Pitches and key insights are read text by text, as by a rubric."""
    parameters = parse_parameters(metric.kind, metric.parameters_json)
    return parameters.mode if isinstance(parameters, JudgeParameters) else RUBRIC


class RememberingJudge(JudgeModel):
    """Remembers the answers for one evaluation: references are read once for all models. Thread-safe.

    `calls` counts the questions that the model was asked, `failures` the answers that were not what the schema asks for. `tokens` are those
    since it was made: a replica runs one evaluation at a time.
    """

    def __init__(self, judge: JudgeModel) -> None:
        self._judge = judge
        self._earlier_tokens = judge.tokens
        self._answers: dict[str, Reply] = {}
        self._lock = threading.Lock()
        self.calls = 0
        self.failures = 0

    @property
    def name(self) -> str:
        return self._judge.name

    @property
    def tokens(self) -> int:
        return self._judge.tokens - self._earlier_tokens

    def ask(self, messages: Sequence[tuple[str, str]], schema: Mapping[str, Any], max_tokens: int) -> Reply:
        key = json.dumps([messages, schema])
        with self._lock:
            if key in self._answers:
                return self._answers[key]
        answer = self._judge.ask(messages, schema, max_tokens)
        with self._lock:
            self.calls += 1
            self.failures += answer is None
            return self._answers.setdefault(key, answer)


class RefusedJudge(JudgeModel):
    """Judges nothing: no model judges its own answers."""

    def __init__(self, name: str) -> None:
        self._name = name

    @property
    def name(self) -> str:
        return self._name

    @property
    def tokens(self) -> int:
        return 0

    def ask(self, messages: Sequence[tuple[str, str]], schema: Mapping[str, Any], max_tokens: int) -> Reply:
        raise FailedPrecondition(
            Reason.JUDGE_IS_CANDIDATE,
            "The judge model is the candidate, or the specialist that it would serve. Name another model in TAILOR_JUDGE_MODEL.",
        )
