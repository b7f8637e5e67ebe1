"""Datasets, runs, adapters and what was decided about them."""

from typing import Any

from services.console import rules
from services.console.domain import Page, Visitor
from services.console.listing import Column, ListFilter, Listing, ListQuery, ListSpec, parse_query, read_list
from services.console.lists.common import (
    ListAnswer,
    Parameters,
    by_specialist,
    chosen_specialist,
    read_spec,
    seconds,
    to_options,
)
from services.console.ports import Services
from services.console.reads import LIST_SIZE, read_adapters, read_datasets, read_page, read_runs
from tailor.api.events.v1 import models_pb2
from tailor.api.registry.v1 import registry_pb2
from tailor.api.training.v1 import training_pb2


def list_runs(services: Services, visitor: Visitor, parameters: Parameters) -> ListAnswer[training_pb2.Run]:
    """Runs, newest first."""
    spec = ListSpec[training_pb2.Run](
        path="/runs",
        noun="runs",
        columns=(
            Column("Compare", silent=True),
            Column("Run", "run", lambda item: item.run_id),
            Column("State", "state", lambda item: rules.word(item, "state")),
            Column("Specialist", "specialist", lambda item: item.specialist),
            Column("Stages"),
            Column("Progress"),
            Column("Loss", "loss", lambda item: item.progress.loss, numeric=True),
            Column("Tokens/s", "speed", lambda item: item.progress.tokens_per_second, numeric=True),
            Column("Base and recipe", "recipe", lambda item: f"{item.base} {item.recipe}"),
            Column("Adapter"),
            Column("Queued (UTC)", "queued", lambda item: seconds(item.create_time), numeric=True),
        ),
        text=lambda item: " ".join(
            (
                item.run_id,
                item.specialist,
                item.base,
                item.recipe,
                item.reason,
                item.message,
                item.dataset_digest,
                item.preference_dataset_digest,
                item.adapter_digest,
                *(stage.method for stage in item.stages),
            )
        ),
        searched="ids and digests, specialist, base, recipe, stage, reason",
        choices=(
            *by_specialist(services, visitor),
            ListFilter(
                "state",
                "State",
                to_options(training_pb2.RunState, "RUN_STATE_"),
                lambda item: rules.code(item, "state"),
            ),
        ),
    )
    return read_spec(
        spec,
        parameters,
        "training",
        lambda token, query: read_runs(services, token, chosen_specialist(visitor, query)),
        lambda item: visitor.may_use(item.specialist),
    )


def list_datasets(services: Services, visitor: Visitor, parameters: Parameters) -> ListAnswer[models_pb2.DatasetBuilt]:
    """Datasets, newest first."""
    spec = ListSpec[models_pb2.DatasetBuilt](
        path="/datasets",
        noun="datasets",
        columns=(
            Column("Dataset", "dataset", lambda item: item.digest),
            Column("Specialist", "specialist", lambda item: item.specialist),
            Column("Kind", "kind", lambda item: rules.word(item, "kind")),
            Column("Train rows", "train", lambda item: item.train_rows, numeric=True),
            Column("Held out", "held-out", lambda item: item.held_out_rows, numeric=True),
            Column("Documents", "documents", lambda item: item.documents, numeric=True),
            Column("Base", "base", lambda item: item.base),
            Column("Pipeline", "pipeline", rules.pipeline),
            Column("Built (UTC)", "built", lambda item: seconds(item.create_time), numeric=True),
        ),
        text=lambda item: " ".join((item.digest, item.specialist, item.base, rules.pipeline(item))),
        searched="digest, specialist, base, pipeline",
        choices=(
            *by_specialist(services, visitor),
            ListFilter(
                "kind",
                "Kind",
                to_options(models_pb2.DatasetKind, "DATASET_KIND_"),
                lambda item: rules.code(item, "kind"),
            ),
        ),
    )
    return read_spec(
        spec,
        parameters,
        "registry",
        lambda token, query: read_datasets(services, token, chosen_specialist(visitor, query)),
        lambda item: visitor.may_use(item.specialist),
    )


def _adapter_text(item: registry_pb2.CatalogueAdapter) -> str:
    weights = item.adapter
    return " ".join(
        (weights.digest, weights.specialist, weights.base, weights.run_id, weights.dataset_digest, *item.reasons)
    )


def _state_of_adapter() -> ListFilter[Any]:
    """A filter of adapters and of entries of a leaderboard, which have the same field."""
    return ListFilter(
        "state",
        "State",
        to_options(registry_pb2.AdapterState, "ADAPTER_STATE_"),
        lambda item: rules.code(item, "state"),
    )


def list_adapters(
    services: Services, visitor: Visitor, parameters: Parameters
) -> ListAnswer[registry_pb2.CatalogueAdapter]:
    """Adapters, newest first."""
    spec = ListSpec[registry_pb2.CatalogueAdapter](
        path="/adapters",
        noun="adapters",
        columns=(
            Column("Adapter", "adapter", lambda item: item.adapter.digest),
            Column("Specialist", "specialist", lambda item: item.adapter.specialist),
            Column("Kind", "kind", lambda item: rules.word(item.adapter, "kind")),
            Column("State", "state", lambda item: rules.word(item, "state")),
            Column("Gain over base"),
            Column("Loss", "loss", lambda item: item.adapter.last_loss, numeric=True),
            Column("Duration", "duration", lambda item: item.adapter.seconds, numeric=True),
            Column("Run"),
            Column("Created (UTC)", "created", lambda item: seconds(item.adapter.create_time), numeric=True),
            Column("Actions", silent=True),
        ),
        text=_adapter_text,
        searched="digests, specialist, base, run, reasons of the verdict",
        choices=(
            *by_specialist(services, visitor),
            _state_of_adapter(),
            ListFilter(
                "kind",
                "Kind",
                to_options(models_pb2.AdapterKind, "ADAPTER_KIND_"),
                lambda item: rules.code(item.adapter, "kind"),
            ),
        ),
    )
    return read_spec(
        spec,
        parameters,
        "registry",
        lambda token, query: read_adapters(services, token, chosen_specialist(visitor, query)),
        lambda item: visitor.may_use(item.adapter.specialist),
    )


def list_approvals(
    services: Services, visitor: Visitor, parameters: Parameters
) -> ListAnswer[registry_pb2.CatalogueAdapter]:
    """Adapters that wait for approval, oldest first."""
    spec = ListSpec[registry_pb2.CatalogueAdapter](
        path="/approvals",
        noun="adapters that wait",
        columns=(
            Column("Specialist", "specialist", lambda item: item.adapter.specialist),
            Column("Created", "created", lambda item: seconds(item.adapter.create_time), numeric=True),
        ),
        text=_adapter_text,
        searched="digests, specialist, base, run, reasons of the verdict",
        choices=by_specialist(services, visitor),
        first="oldest",
        further="newer ones",
    )

    def list_page(token: str, query: ListQuery) -> Page[registry_pb2.CatalogueAdapter]:
        specialist = chosen_specialist(visitor, query)
        request = registry_pb2.ListApprovalsRequest(specialist=specialist, page_token=token, page_size=LIST_SIZE)
        return read_page(services.registry.ListApprovals, request, "adapters")

    return read_spec(
        spec,
        parameters,
        "registry",
        list_page,
        lambda item: visitor.may_use(item.adapter.specialist),
    )


def rank_entries(
    board: registry_pb2.GetLeaderboardResponse, name: str, title: str, parameters: Parameters
) -> Listing[registry_pb2.LeaderboardEntry]:
    """The entries of a leaderboard, in their order by the metric, which people know as `title`, unless another column is chosen."""

    def score(item: registry_pb2.LeaderboardEntry) -> float:
        return item.scores[board.metric].value if board.metric in item.scores else float("-inf")

    def gain(item: registry_pb2.LeaderboardEntry) -> float:
        return item.gains[board.metric].value if board.metric in item.gains else float("-inf")

    spec = ListSpec[registry_pb2.LeaderboardEntry](
        path=f"/specialists/{name}/leaderboard",
        noun="entries",
        columns=(
            Column("Model", "model", lambda item: item.model or item.adapter_digest),
            Column(title, "score", score, numeric=True),
            Column("Gain over base", "gain", gain, numeric=True),
            Column("State", "state", lambda item: rules.word(item, "state") if item.state else ""),
            Column("Median answer", "seconds", lambda item: item.cost.median_seconds, numeric=True),
            Column("1,000 answers", "price", lambda item: item.cost.price_per_1000, numeric=True),
            Column("Dataset", "dataset", lambda item: item.dataset_digest),
            Column("Rows", "rows", lambda item: item.rows, numeric=True),
            Column("Actions", silent=True),
        ),
        text=lambda item: " ".join((item.model, item.adapter_digest, item.dataset_digest)),
        searched="model, digests",
        choices=(_state_of_adapter(),),
        first="first",
        further="further ones",
        kept={"metric": board.metric} if board.metric else {},
    )
    return read_list(spec, parse_query(spec, parameters), lambda token: Page(tuple(board.entries)), lambda item: True)


def list_decisions(
    services: Services, visitor: Visitor, parameters: Parameters
) -> ListAnswer[registry_pb2.OperatorDecision]:
    """Operators' decisions, newest first."""
    spec = ListSpec[registry_pb2.OperatorDecision](
        path="/decisions",
        noun="decisions",
        columns=(
            Column("Time (UTC)", "time", lambda item: seconds(item.create_time), numeric=True),
            Column("Decision", "kind", lambda item: rules.word(item, "kind")),
            Column("Specialist", "specialist", lambda item: item.specialist),
            Column("Adapter", "adapter", lambda item: item.adapter_digest),
            Column("Verdict", "verdict", rules.word_of_verdict),
            Column("Key", "key", lambda item: item.key_id),
            Column("Reason", "reason", lambda item: item.reason),
        ),
        text=lambda item: " ".join((item.specialist, item.adapter_digest, item.key_id, item.reason)),
        searched="specialist, adapter, key, reason",
        choices=(
            *by_specialist(services, visitor),
            ListFilter(
                "kind",
                "Decision",
                to_options(registry_pb2.OperatorDecisionKind, "OPERATOR_DECISION_KIND_"),
                lambda item: rules.code(item, "kind"),
            ),
        ),
    )

    def list_page(token: str, query: ListQuery) -> Page[registry_pb2.OperatorDecision]:
        request = registry_pb2.ListDecisionsRequest(specialist=chosen_specialist(visitor, query), page_token=token)
        return read_page(services.registry.ListDecisions, request, "decisions")

    return read_spec(
        spec,
        parameters,
        "registry",
        list_page,
        lambda item: visitor.may_use(item.specialist),
    )
