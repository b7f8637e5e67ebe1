"""Datasets, runs, adapters and what was decided about them."""

from services.console.domain import Page, Visitor
from services.console.listing import Listing, ListSpec, PageColumn, parse_query, read_list
from services.console.lists.common import ListAnswer, Parameters, by_enum, read_of_specialists, to_columns
from services.console.ports import Services
from tailor.api.events.v1.models_pb2 import DatasetBuilt
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
from tailor.columns import join
from tailor.list_columns import ADAPTERS, DATASETS, DECISIONS, RUNS, list_leaderboard


def list_runs(services: Services, visitor: Visitor, parameters: Parameters) -> ListAnswer[Run]:
    """Runs, newest first."""
    spec = ListSpec[Run](
        path="/runs",
        noun="runs",
        columns=to_columns(
            RUNS,
            "(Compare), run, state, specialist, Stages, Progress, loss, tokens/s, base and recipe, Adapter, queued",
        ),
        text=join(
            "run_id, specialist, base, recipe, reason, message, dataset_digest, preference_dataset_digest, adapter_digest",
            lambda item: " ".join(stage.method for stage in item.stages),
        ),
        searched="ids and digests, specialist, base, recipe, stage, reason",
        choices=(by_enum(Run, "state"),),
    )
    return read_of_specialists(services, visitor, spec, parameters, services.training.ListRuns, ListRunsRequest())


def list_datasets(services: Services, visitor: Visitor, parameters: Parameters) -> ListAnswer[DatasetBuilt]:
    """Datasets, newest first."""
    (pipeline,) = DATASETS.pick("pipeline")
    spec = ListSpec[DatasetBuilt](
        path="/datasets",
        noun="datasets",
        columns=to_columns(DATASETS, "dataset, specialist, kind, rows, held out, documents, base, pipeline, built"),
        text=join("digest, specialist, base", pipeline.cell),
        searched="digest, specialist, base, pipeline",
        choices=(by_enum(DatasetBuilt, "kind"),),
    )
    return read_of_specialists(
        services, visitor, spec, parameters, services.registry.ListDatasets, ListDatasetsRequest()
    )


ADAPTER_TEXT = join(
    "adapter.digest, adapter.specialist, adapter.base, adapter.run_id, adapter.dataset_digest",
    lambda item: " ".join(item.reasons),
)


def list_adapters(services: Services, visitor: Visitor, parameters: Parameters) -> ListAnswer[CatalogueAdapter]:
    """Adapters, newest first."""
    spec = ListSpec[CatalogueAdapter](
        path="/adapters",
        noun="adapters",
        columns=to_columns(
            ADAPTERS, "adapter, specialist, kind, state, Gain over base, loss, duration, Run, created, (Actions)"
        ),
        text=ADAPTER_TEXT,
        searched="digests, specialist, base, run, reasons of the verdict",
        choices=(by_enum(CatalogueAdapter, "state"), by_enum(CatalogueAdapter, "adapter.kind")),
    )
    return read_of_specialists(
        services, visitor, spec, parameters, services.registry.ListAdapters, ListAdaptersRequest()
    )


def list_approvals(services: Services, visitor: Visitor, parameters: Parameters) -> ListAnswer[CatalogueAdapter]:
    """Adapters that wait for approval, oldest first."""
    spec = ListSpec[CatalogueAdapter](
        path="/approvals",
        noun="adapters that wait",
        columns=to_columns(ADAPTERS, "specialist, created"),
        text=ADAPTER_TEXT,
        searched="digests, specialist, base, run, reasons of the verdict",
        first="oldest",
        further="newer ones",
    )
    return read_of_specialists(
        services, visitor, spec, parameters, services.registry.ListApprovals, ListApprovalsRequest()
    )


def rank_entries(
    board: GetLeaderboardResponse, name: str, title: str, parameters: Parameters
) -> Listing[LeaderboardEntry]:
    """The entries of a leaderboard, in their order by the metric, which people know as `title`, unless another column is chosen."""
    known = list_leaderboard(board.metric)
    (score,) = known.pick(board.metric)
    spec = ListSpec[LeaderboardEntry](
        path=f"/specialists/{name}/leaderboard",
        noun="entries",
        columns=to_columns(
            known,
            "model",
            PageColumn(title, "score", score.key, numeric=True),
            "gain over base, state, median, per 1,000, dataset, rows, (Actions)",
        ),
        text=join("model, adapter_digest, dataset_digest"),
        searched="model, digests",
        choices=(by_enum(LeaderboardEntry, "state"),),
        first="first",
        further="further ones",
        kept={"metric": board.metric} if board.metric else {},
    )
    return read_list(spec, parse_query(spec, parameters), lambda token: Page(tuple(board.entries)), lambda item: True)


def list_decisions(services: Services, visitor: Visitor, parameters: Parameters) -> ListAnswer[OperatorDecision]:
    """Operators' decisions, newest first."""
    spec = ListSpec[OperatorDecision](
        path="/decisions",
        noun="decisions",
        columns=to_columns(DECISIONS, "time, decision, specialist, adapter, verdict, key, reason"),
        text=join("specialist, adapter_digest, key_id, reason"),
        searched="specialist, adapter, key, reason",
        choices=(by_enum(OperatorDecision, "kind", title="Decision"),),
    )
    return read_of_specialists(
        services, visitor, spec, parameters, services.registry.ListDecisions, ListDecisionsRequest()
    )
