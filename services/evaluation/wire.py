"""Translates evaluation's messages to its domain and back, so that rules know no protobuf. A new field of a message is added here."""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict

from services.evaluation.comparison import Comparison, RowPair
from services.evaluation.domain import (
    Adapter,
    Definition,
    Estimate,
    Evaluation,
    EvaluationResult,
    EvaluationState,
    Goal,
    GoalState,
    MetricFigures,
    ModelCost,
    Serving,
    SpecialistTerms,
)
from tailor.api.evaluation.v1 import evaluation_pb2
from tailor.api.events.v1 import models_pb2
from tailor.errors import InvalidArgument, Reason
from tailor.wire import from_ref, to_datetime, to_evaluation_policy, to_metric, to_ref, to_sampling

STATES = {
    EvaluationState.QUEUED: evaluation_pb2.EVALUATION_STATE_QUEUED,
    EvaluationState.RUNNING: evaluation_pb2.EVALUATION_STATE_RUNNING,
    EvaluationState.SUCCEEDED: evaluation_pb2.EVALUATION_STATE_SUCCEEDED,
    EvaluationState.FAILED: evaluation_pb2.EVALUATION_STATE_FAILED,
}

GOAL_STATES = {
    GoalState.REACHED: models_pb2.GOAL_STATE_REACHED,
    GoalState.MISSED: models_pb2.GOAL_STATE_MISSED,
    GoalState.OPEN: models_pb2.GOAL_STATE_OPEN,
}


def to_adapter(message: models_pb2.AdapterTrained) -> Adapter:
    """Raises InvalidArgument (INCOMPLETE_EVENT) if a required field is empty."""
    for field in ("digest", "specialist", "dataset_digest"):
        if not getattr(message, field):
            raise InvalidArgument(Reason.INCOMPLETE_EVENT, f"AdapterTrained needs `{field}`.")
    return Adapter(
        digest=message.digest,
        specialist=message.specialist,
        dataset_digest=message.dataset_digest,
        base=message.base,
        manifest=to_ref(message.manifest),
        parent_digest=message.parent_digest,
        sft_dataset=message.sft_dataset_digest,
        preference_dataset=message.preference_dataset_digest,
        intermediate=message.intermediate,
    )


def to_serving(message: models_pb2.SpecialistServing) -> Serving:
    manifest = to_ref(message.manifest) if message.adapter_digest else None
    return Serving(message.specialist, message.generation, message.adapter_digest, manifest)


def to_terms(message: models_pb2.SpecialistChanged) -> SpecialistTerms:
    return SpecialistTerms(
        specialist=message.name,
        revision=message.revision,
        house_terms=tuple(message.house_terms),
        sampling=to_sampling(message.sampling),
        metrics=tuple(map(to_metric, message.metrics)),
        policy=to_evaluation_policy(message.evaluation),
        definition_digest=_definition_digest(message),
        deleted=message.deleted,
    )


def _definition_digest(message: models_pb2.SpecialistChanged) -> str:
    """SHA-256 of the metrics and the gate."""
    parts = models_pb2.SpecialistChanged(metrics=message.metrics, gate=message.gate)
    return hashlib.sha256(parts.SerializeToString(deterministic=True)).hexdigest()


def from_result(result: EvaluationResult) -> models_pb2.AdapterEvaluated:
    adapter, incumbent = result.evaluation.adapter, result.incumbent
    message = models_pb2.AdapterEvaluated(
        evaluation_id=result.evaluation.evaluation_id,
        adapter_digest=adapter.digest,
        specialist=adapter.specialist,
        dataset_digest=adapter.dataset_digest,
        rows=result.rows,
        held_out_rows=result.held_out_rows,
        report=from_ref(result.report),
        metrics=map(from_figures, result.metrics),
        suites=map(from_figures, result.suites),
        costs=map(from_cost, result.costs),
        specialist_revision=result.specialist_revision,
        not_measured=result.not_measured,
        document_scores=from_ref(result.document_scores) if result.document_scores else None,
        rows_too_long=result.rows_too_long,
        definitions=map(_from_definition, result.definitions),
        goals=map(_from_goal, result.goals),
        preference_dataset_digest=result.preferences,
        incumbent_preference_dataset_digest=result.incumbent_preferences,
        pairs=result.pairs,
        held_out_pairs=result.held_out_pairs,
        judge_tokens=result.judge_tokens,
    )
    if incumbent is not None:
        message.incumbent_digest = incumbent.adapter_digest
        message.incumbent_generation = incumbent.generation
    if result.created_at is not None:
        message.create_time.FromDatetime(result.created_at)
    return message


def to_result(message: models_pb2.AdapterEvaluated, evaluation: Evaluation) -> EvaluationResult:
    incumbent = None
    if message.incumbent_generation:
        incumbent = Serving(message.specialist, message.incumbent_generation, message.incumbent_digest)
    return EvaluationResult(
        evaluation=evaluation,
        rows=message.rows,
        incumbent=incumbent,
        report=to_ref(message.report),
        specialist_revision=message.specialist_revision,
        metrics=tuple(map(to_figures, message.metrics)),
        held_out_rows=message.held_out_rows,
        suites=tuple(map(to_figures, message.suites)),
        costs=tuple(map(to_cost, message.costs)),
        not_measured=dict(message.not_measured),
        document_scores=to_ref(message.document_scores) if message.HasField("document_scores") else None,
        created_at=to_datetime(message.create_time),
        rows_too_long=message.rows_too_long,
        definitions=tuple(map(_to_definition, message.definitions)),
        goals=tuple(map(_to_goal, message.goals)),
        preferences=message.preference_dataset_digest,
        incumbent_preferences=message.incumbent_preference_dataset_digest,
        pairs=message.pairs,
        held_out_pairs=message.held_out_pairs,
        judge_tokens=message.judge_tokens,
    )


def _to_definition(message: models_pb2.MetricDefinitions) -> Definition:
    return Definition(message.digest, message.revision, to_datetime(message.freeze_time))


def _to_goal(message: models_pb2.Goal) -> Goal:
    state = next(state for state, value in GOAL_STATES.items() if value == message.state)
    return Goal(message.metric, message.goal, message.is_gain, _to_estimate(message.estimate), state)


def _from_definition(definition: Definition) -> models_pb2.MetricDefinitions:
    message = models_pb2.MetricDefinitions(revision=definition.revision, digest=definition.digest)
    message.freeze_time.FromDatetime(definition.frozen_at)
    return message


def _from_goal(goal: Goal) -> models_pb2.Goal:
    return models_pb2.Goal(
        metric=goal.metric,
        goal=goal.goal,
        is_gain=goal.is_gain,
        estimate=_from_estimate(goal.estimate),
        state=GOAL_STATES[goal.state],
    )


def from_figures(figures: MetricFigures) -> models_pb2.MetricFigures:
    return models_pb2.MetricFigures(
        metric=figures.metric,
        lower_is_better=figures.lower_is_better,
        models=_from_estimates(figures.models),
        gains=_from_estimates(figures.gains),
    )


def to_figures(message: models_pb2.MetricFigures) -> MetricFigures:
    return MetricFigures(
        message.metric, message.lower_is_better, _to_estimates(message.models), _to_estimates(message.gains)
    )


def from_cost(cost: ModelCost) -> models_pb2.ModelCost:
    return models_pb2.ModelCost(**asdict(cost))


def to_cost(message: models_pb2.ModelCost) -> ModelCost:
    return ModelCost(
        model=message.model,
        answers=message.answers,
        median_seconds=message.median_seconds,
        p95_seconds=message.p95_seconds,
        prompt_tokens=message.prompt_tokens,
        answer_tokens=message.answer_tokens,
        price_per_1000=message.price_per_1000 if message.HasField("price_per_1000") else None,
        currency=message.currency,
        cut_answers=message.cut_answers,
    )


def _from_estimates(estimates: Mapping[str, Estimate]) -> dict[str, models_pb2.Estimate]:
    return {model: _from_estimate(estimate) for model, estimate in estimates.items()}


def _from_estimate(estimate: Estimate) -> models_pb2.Estimate:
    return models_pb2.Estimate(**asdict(estimate))


def _to_estimates(messages: Mapping[str, models_pb2.Estimate]) -> dict[str, Estimate]:
    return {model: _to_estimate(item) for model, item in messages.items()}


def _to_estimate(message: models_pb2.Estimate) -> Estimate:
    return Estimate(message.value, message.low, message.high, message.rows)


def from_comparison(comparison: Comparison, start: int, size: int) -> evaluation_pb2.CompareEvaluationsResponse:
    """A page of the rows, with all groups."""
    end = start + size
    return evaluation_pb2.CompareEvaluationsResponse(
        metric=comparison.metric,
        lower_is_better=comparison.lower_is_better,
        metrics=comparison.metrics,
        groups=[
            evaluation_pb2.GroupComparison(
                task=group.task,
                language=group.language,
                rows=group.rows,
                first=_from_estimate(group.first),
                second=_from_estimate(group.second),
                gain=_from_estimate(group.gain),
            )
            for group in comparison.groups
        ],
        rows=map(_from_pair, comparison.rows[start:end]),
        only_first=comparison.only_first,
        only_second=comparison.only_second,
        next_page_token=str(end) if end < len(comparison.rows) else "",
    )


def _from_pair(pair: RowPair) -> evaluation_pb2.RowComparison:
    return evaluation_pb2.RowComparison(
        row_id=pair.row.row_id,
        task=pair.row.task,
        language=pair.row.language,
        prompt=pair.row.messages[-1][1] if pair.row.messages else "",
        reference=pair.row.reference,
        first_answer=pair.first_answer,
        second_answer=pair.second_answer,
        first_value=pair.first_value,
        second_value=pair.second_value,
        gain=pair.gain,
    )
