"""A specialist's leaderboard, from the newest evaluation of each adapter."""

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from tailor.api.events.v1 import models_pb2
from tailor.api.registry.v1 import registry_pb2

CANDIDATE, INCUMBENT, BASE = "candidate", "incumbent", "base"
Entry = registry_pb2.LeaderboardEntry


def make_leaderboard(
    adapters: Sequence[registry_pb2.CatalogueAdapter], metric: str, pins: Collection[str]
) -> registry_pb2.GetLeaderboardResponse:
    """Rank adapters (newest first) and the untuned models of their evaluations, separately for each dataset.

    The rows of datasets differ, so scores of different datasets cannot be compared. Of each dataset, the newest evaluation gives the scores
    of the untuned models.
    """
    evaluated = [item for item in adapters if item.HasField("evaluation")]
    figures = [figure for item in evaluated if (figure := _find(item.evaluation, metric))]
    lower_is_better = bool(figures) and figures[0].lower_is_better
    entries: list[Entry] = []
    for group in _by_dataset(evaluated).values():
        entries += _rank([*_list_tuned(group), *_list_untuned(group[0].evaluation)], metric, lower_is_better)
    for entry in entries:
        entry.pinned = (entry.adapter_digest or entry.model) in pins
    # Sorting is stable: within the pinned and the other entries, the order stays.
    entries.sort(key=lambda entry: not entry.pinned)
    not_evaluated = sum(item.adapter.kind == models_pb2.ADAPTER_KIND_POLICY for item in adapters) - len(evaluated)
    return registry_pb2.GetLeaderboardResponse(
        metric=metric, lower_is_better=lower_is_better, entries=entries, not_evaluated=max(0, not_evaluated)
    )


def _by_dataset(
    adapters: Iterable[registry_pb2.CatalogueAdapter],
) -> Mapping[str, list[registry_pb2.CatalogueAdapter]]:
    groups: dict[str, list[registry_pb2.CatalogueAdapter]] = {}
    newest_first = sorted(adapters, key=lambda item: item.evaluation.create_time.ToNanoseconds(), reverse=True)
    for item in newest_first:
        groups.setdefault(item.evaluation.dataset_digest, []).append(item)
    return groups


def _list_tuned(group: Iterable[registry_pb2.CatalogueAdapter]) -> Iterator[Entry]:
    for item in group:
        entry = _make_entry(item.evaluation, CANDIDATE)
        entry.adapter_digest, entry.state = item.adapter.digest, item.state
        for figures in item.evaluation.metrics:
            if BASE in figures.gains:
                entry.gains[figures.metric].CopyFrom(figures.gains[BASE])
        yield entry


def _list_untuned(evaluation: models_pb2.AdapterEvaluated) -> Iterator[Entry]:
    names = {model for figures in evaluation.metrics for model in figures.models}
    for name in sorted(names - {CANDIDATE, INCUMBENT}):
        yield _make_entry(evaluation, name)


def _make_entry(evaluation: models_pb2.AdapterEvaluated, model: str) -> Entry:
    entry = Entry(
        model=model,
        dataset_digest=evaluation.dataset_digest,
        evaluation_id=evaluation.evaluation_id,
        rows=evaluation.rows,
        evaluate_time=evaluation.create_time,
        cost=next((cost for cost in evaluation.costs if cost.model == model), None),
    )
    for figures in evaluation.metrics:
        if model in figures.models:
            entry.scores[figures.metric].CopyFrom(figures.models[model])
    return entry


def _rank(entries: list[Entry], metric: str, lower_is_better: bool) -> list[Entry]:
    def loss(entry: Entry) -> float:
        if metric not in entry.scores or math.isnan(entry.scores[metric].value):
            return math.inf
        value = entry.scores[metric].value
        return value if lower_is_better else -value

    ranked = sorted(entries, key=loss)
    for rank, entry in enumerate(ranked, start=1):
        entry.rank = 0 if loss(entry) == math.inf else rank
    return ranked


def _find(evaluation: models_pb2.AdapterEvaluated, metric: str) -> models_pb2.MetricFigures | None:
    return next((figures for figures in evaluation.metrics if figures.metric == metric), None)
