"""Evaluations as evaluation publishes them, for tests of the services and commands that read them."""

from datetime import UTC, datetime
from typing import Any

from tailor.api.events.v1 import models_pb2


def make_estimate(value: float, half: float = 0.005, rows: int = 16) -> models_pb2.Estimate:
    return models_pb2.Estimate(value=value, low=value - half, high=value + half, rows=rows)


def make_figures(
    metric: str, *, lower_is_better: bool = False, rows: int = 16, **models: float
) -> models_pb2.MetricFigures:
    """Figures of these models' values. The gains of the candidate follow from them."""
    sign = -1 if lower_is_better else 1
    gains = {
        model: make_estimate(sign * (models["candidate"] - value), rows=rows)
        for model, value in models.items()
        if model != "candidate"
    }
    return models_pb2.MetricFigures(
        metric=metric,
        lower_is_better=lower_is_better,
        models={model: make_estimate(value, rows=rows) for model, value in models.items()},
        gains=gains,
    )


def make_definitions(*revisions: int) -> list[models_pb2.MetricDefinitions]:
    """Metrics and gates that were frozen on the first days of 2026."""
    definitions = [models_pb2.MetricDefinitions(revision=revision) for revision in revisions]
    for day, definition in enumerate(definitions, 1):
        definition.freeze_time.FromDatetime(datetime(2026, 1, day, tzinfo=UTC))
    return definitions


def make_evaluated(
    digest: str, specialist: str, *figures: models_pb2.MetricFigures, parity: float = 0.01, **fields: Any
) -> models_pb2.AdapterEvaluated:
    """An evaluation on 16 of 16 held-out rows."""
    values: dict[str, Any] = {"evaluation_id": f"evl_{digest}", "rows": 16, "held_out_rows": 16}
    suite = models_pb2.MetricFigures(
        metric="parity", lower_is_better=True, models={"candidate": make_estimate(parity, 0)}
    )
    return models_pb2.AdapterEvaluated(
        adapter_digest=digest, specialist=specialist, metrics=figures, suites=[suite], **{**values, **fields}
    )
