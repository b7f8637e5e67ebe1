"""Datasets, runs, adapters and what was decided about them."""

import math
from typing import Any

from services.console.clients import Services
from services.console.domain import Visitor
from services.console.list_views import ListSpec, ListView, PageColumn, parse_query
from services.console.lists.common import ListAnswer, Parameters, by_enum, read_of_specialists, to_columns
from tailor.api.common.v1.common_pb2 import ListNames
from tailor.api.events.v1.models_pb2 import DatasetBuilt
from tailor.api.registry.v1 import registry_pb2
from tailor.api.registry.v1.registry_pb2 import (
    CatalogueAdapter,
    GetLeaderboardResponse,
    LeaderboardEntry,
    ListAdaptersRequest,
    ListApprovalsRequest,
    ListDatasetsRequest,
    ListDecisionsRequest,
    OperatorDecision,
)
from tailor.api.training.v1.training_pb2 import ListRunsRequest, Run
from tailor.columns import read
from tailor.list_columns import ADAPTERS, DATASETS, DECISIONS, RUNS, list_leaderboard

ENTRY_NAMES = ListNames(
    search="model adapter_digest dataset_digest",
    order_by="adapter_digest score gain state median_seconds price_per_1000 dataset_digest rows",
    filters="state",
)


def list_runs(services: Services, visitor: Visitor, parameters: Parameters) -> ListAnswer[Run]:
    """Runs, newest first."""
    spec = ListSpec(
        path="/runs",
        noun="runs",
        columns=to_columns(
            RUNS,
            "(Compare), run, state, specialist, Stages, Progress, loss, tokens/s, base and recipe, Adapter, queued",
        ),
        choices=(by_enum(Run, "state"),),
    )
    return read_of_specialists(services, visitor, spec, parameters, services.training.ListRuns, ListRunsRequest())


def list_datasets(services: Services, visitor: Visitor, parameters: Parameters) -> ListAnswer[DatasetBuilt]:
    """Datasets, newest first."""
    spec = ListSpec(
        path="/datasets",
        noun="datasets",
        columns=to_columns(DATASETS, "dataset, specialist, kind, rows, held out, documents, base, pipeline, built"),
        choices=(by_enum(DatasetBuilt, "kind"),),
    )
    return read_of_specialists(
        services, visitor, spec, parameters, services.registry.ListDatasets, ListDatasetsRequest()
    )


def list_adapters(services: Services, visitor: Visitor, parameters: Parameters) -> ListAnswer[CatalogueAdapter]:
    """Adapters, newest first."""
    spec = ListSpec(
        path="/adapters",
        noun="adapters",
        columns=to_columns(
            ADAPTERS, "adapter, specialist, kind, state, Gain over base, loss, duration, Run, created, (Actions)"
        ),
        choices=(by_enum(CatalogueAdapter, "state"), by_enum(CatalogueAdapter, "adapter.kind")),
    )
    return read_of_specialists(
        services, visitor, spec, parameters, services.registry.ListAdapters, ListAdaptersRequest(), "adapter.specialist"
    )


def list_approvals(services: Services, visitor: Visitor, parameters: Parameters) -> ListAnswer[CatalogueAdapter]:
    """Adapters that wait for approval, oldest first."""
    spec = ListSpec(
        path="/approvals",
        noun="adapters that wait",
        columns=to_columns(ADAPTERS, "specialist, created"),
        first="oldest",
    )
    return read_of_specialists(
        services,
        visitor,
        spec,
        parameters,
        services.registry.ListApprovals,
        ListApprovalsRequest(),
        "adapter.specialist",
    )


def rank_entries(
    board: GetLeaderboardResponse, name: str, title: str, parameters: Parameters
) -> ListView[LeaderboardEntry]:
    """The entries of a leaderboard, in their order by the metric, which people know as `title`, unless another column is chosen.

    The registry ranks them whole, so the console searches, filters and orders them itself.
    """
    spec = ListSpec(
        path=f"/specialists/{name}/leaderboard",
        noun="entries",
        names=ENTRY_NAMES,
        columns=to_columns(
            list_leaderboard(board.metric),
            "model",
            PageColumn(title, "score", numeric=True),
            "gain over base, state, median, per 1,000, dataset, rows, (Actions)",
        ),
        choices=(by_enum(LeaderboardEntry, "state"),),
        first="first",
        kept={"metric": board.metric} if board.metric else {},
    )
    query = parse_query(spec, parameters)
    words, state = query.search.lower().split(), query.filters.get("state")
    entries = [item for item in board.entries if all(word in _entry_text(item) for word in words)]
    entries = [
        item for item in entries if not state or item.state == registry_pb2.AdapterState.Value(f"ADAPTER_STATE_{state}")
    ]
    if query.order_by:
        order = query.order_by.removesuffix(" desc")
        entries.sort(key=lambda item: _entry_values(item, board.metric)[order], reverse=query.descending)
    return ListView(spec, query, tuple(entries))


def _entry_text(item: LeaderboardEntry) -> str:
    return f"{item.model} {item.adapter_digest} {item.dataset_digest}".lower()


def _entry_values(item: LeaderboardEntry, metric: str) -> dict[str, Any]:
    """What entries are ordered by. Those without a score are the least."""
    return {
        "adapter_digest": item.adapter_digest or item.model,
        "score": item.scores[metric].value if metric in item.scores else -math.inf,
        "gain": item.gains[metric].value if metric in item.gains else -math.inf,
        "state": str(read(item, "state")),
        "median_seconds": item.cost.median_seconds,
        "price_per_1000": item.cost.price_per_1000,
        "dataset_digest": item.dataset_digest,
        "rows": item.rows,
    }


def list_decisions(services: Services, visitor: Visitor, parameters: Parameters) -> ListAnswer[OperatorDecision]:
    """Operators' decisions, newest first."""
    spec = ListSpec(
        path="/decisions",
        noun="decisions",
        columns=to_columns(DECISIONS, "time, decision, specialist, adapter, verdict, key, reason"),
        choices=(by_enum(OperatorDecision, "kind", title="Decision"),),
    )
    return read_of_specialists(
        services, visitor, spec, parameters, services.registry.ListDecisions, ListDecisionsRequest()
    )
