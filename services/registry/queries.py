"""The read side: what callers list and look up, in the services' own messages, straight from PostgreSQL.

Handlers decide and write; queries neither decide nor lock."""

from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, Engine, Row, Select, case, func, literal, select, text
from sqlalchemy.dialects.postgresql import distinct_on

from services.registry import wire
from services.registry.adapters import tables
from services.registry.adapters.audit import AuditQueries
from services.registry.adapters.canaries import find_newest_canary
from services.registry.adapters.feedback import FeedbackQueries
from services.registry.adapters.leaderboard import make_leaderboard
from services.registry.adapters.ledger import LedgerQueries
from services.registry.adapters.operators import SqlOperatorDecisions
from services.registry.adapters.outcomes import OutcomeQueries
from services.registry.adapters.records import read_records, to_facts
from services.registry.adapters.stored_judgements import PanelQueries, read_round
from services.registry.domain import (
    ApiKey,
    Approval,
    Decision,
    FactKind,
    OperatorDecision,
    Replica,
    ReplicaRollout,
    Specialist,
)
from services.registry.people_domain import Person
from services.registry.rules.gate import find_primary
from services.registry.rules.rollout import is_finished
from services.registry.rules.states import advise, decide_state
from tailor.api.events.v1 import documents_pb2, drafts_pb2, models_pb2
from tailor.api.registry.v1 import people_pb2, registry_pb2
from tailor.columns import read
from tailor.listing import Listing, ListPage
from tailor.rows import Rows
from tailor.sql import transaction

REJECTED_PAGE = "r:"
MAX_SERVED_FACTS = 1000
# Documents per page: by default, and at most.
DOCUMENTS = (100, 1000)
OLDEST_RUNNING = text("SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint")
# Adapters of a leaderboard; the contract names this number.
MAX_RANKED = 200
# One rejection with this reason stands for many events; a larger count does not come from a consumer.
EXPIRED = "EXPIRED"
MAX_EXPIRED = 10**12


class Queries(AuditQueries, FeedbackQueries, LedgerQueries, OutcomeQueries, PanelQueries):
    """Reads over the catalogue, each in its own transaction."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def list_specialists(
        self, request: registry_pb2.ListSpecialistsRequest, names: Collection[str] = ()
    ) -> ListPage[registry_pb2.GetSpecialistResponse]:
        """Specialists by name, without deleted ones, each with what serves it; without names, all of them."""
        rows, columns = Rows(self._engine, tables.specialists, Row), {"generation": _generation()}
        listing = Listing(rows, request, rows.c.name, columns=columns, derived={"serves": wire.what_serves})
        query = rows.select(deleted=False, **_among("name", names))
        return listing.page(query, read=lambda row: self.specialist(row.payload))

    def specialist(self, definition: models_pb2.SpecialistChanged) -> registry_pb2.GetSpecialistResponse:
        """A specialist with what serves it, its newest canary, and its progress towards the next round."""
        with transaction(self._engine) as connection:
            progress = read_round(connection, wire.to_specialist(definition))
        return registry_pb2.GetSpecialistResponse(
            specialist=definition,
            serving=self.serving(definition.name),
            canary=self.canary(definition.name),
            round=wire.from_round(progress) if progress else None,
        )

    def documents_with_text(self, digest: str) -> list[str]:
        """Ids of the documents whose current text has this digest. Reads all documents."""
        documents = Rows(self._engine, tables.documents, Row)
        has_digest = func.position(literal(digest.encode()).op("IN")(documents.c.payload)) > 0
        return documents.values(documents.c.document_id, has_digest, order=documents.c.document_id)

    def list_revisions(self, request: registry_pb2.ListRevisionsRequest) -> ListPage[registry_pb2.SpecialistRevision]:
        """What was published last of each specialist by name, deleted ones included."""
        known = Rows(self._engine, tables.specialists, registry_pb2.SpecialistRevision)
        query = select(known.c.name, known.c.revision, _generation())
        return Listing(known, request, known.c.name).page(query, size=(1000, 1000))

    def canary(self, name: str) -> registry_pb2.Canary | None:
        """A specialist's newest canary with its arms; None before the first."""
        with transaction(self._engine) as connection:
            canary = find_newest_canary(connection, name)
        return None if canary is None else wire.from_canary(canary)

    def serving(self, name: str) -> registry_pb2.Serving | None:
        """The current generation and its rollout; None before the first promotion."""
        row = Rows(self._engine, tables.servings, Row, "generation").newest(specialist=name)
        if row is None:
            return None
        decision = row.payload
        facts = self.facts(FactKind.SERVED, name, MAX_SERVED_FACTS)
        served = map(models_pb2.AdapterServed.FromString, facts)
        reports = [report for report in served if report.generation == decision.generation]
        rollout = self._rollout(decision, reports)
        return registry_pb2.Serving(
            decision=decision, replicas=reports, finished=is_finished(rollout), rollout=map(wire.from_rollout, rollout)
        )

    def _rollout(
        self, decision: models_pb2.SpecialistServing, reports: Sequence[models_pb2.AdapterServed]
    ) -> list[ReplicaRollout]:
        """Every ready replica of the base that stands for the adapter, else of the adapter's own base, by name, with its report."""
        now, replicas = datetime.now(UTC), Rows(self._engine, tables.replicas, Replica)
        ready = [replica for replica in replicas.all(order=replicas.c.name) if replica.is_ready(now)]
        merged = [it for it in ready if it.adapter_digest and it.adapter_digest == decision.adapter_digest]
        by_name = {report.replica: report for report in reports}
        return [
            ReplicaRollout(replica, by_name[replica.name].serving, by_name[replica.name].reason)
            if replica.name in by_name
            else ReplicaRollout(replica)
            for replica in merged or [it for it in ready if it.base == decision.base]
        ]

    def list_documents(
        self, request: registry_pb2.ListDocumentsRequest, selector: Specialist | None = None, dataset: str = ""
    ) -> ListPage[registry_pb2.CatalogueDocument]:
        """Current documents by id; with a specialist, only those that it selects; with a dataset's digest, only those in it.

        With a cursor, only those that were written since, as far as it is known.
        """
        rows, sources = Rows(self._engine, tables.documents, Row), tables.dataset_documents
        query, changed_since = rows.select(*_selected(selector)), request.changed_since
        # Transaction numbers start again if the database was restored elsewhere; then everything may have changed.
        if 0 < changed_since <= self.cursor():
            query = query.where(rows.c.changed >= changed_since)
        if dataset:
            query = query.join(sources, sources.c.document_id == rows.c.document_id).where(sources.c.digest == dataset)
        return Listing(rows, request, rows.c.document_id).page(
            query, size=DOCUMENTS, read=lambda row: registry_pb2.CatalogueDocument(anonymized=row.payload)
        )

    def cursor(self) -> int:
        """Call it before reading documents: what running and later transactions write has at least this number."""
        with transaction(self._engine) as connection:
            return int(connection.scalar(OLDEST_RUNNING) or 0)

    def documents_by_id(
        self, document_ids: Sequence[str], selector: Specialist | None = None
    ) -> list[documents_pb2.DocumentAnonymized]:
        """The catalogued ones of these documents; with a specialist, only those that it selects."""
        rows = Rows(self._engine, tables.documents, Row)
        order = rows.c.document_id
        return rows.values(rows.c.payload, *_selected(selector), document_id=[*document_ids], order=order)

    def documents_from(
        self, start: str, selector: Specialist | None, limit: int
    ) -> list[documents_pb2.DocumentAnonymized]:
        """The first of the documents whose ids begin so."""
        rows = Rows(self._engine, tables.documents, Row)
        begins = rows.c.document_id.startswith(start, autoescape=True)
        page = rows.all(begins, *_selected(selector), order=rows.c.document_id, limit=limit)
        return [row.payload for row in page]

    def list_rejected(self, request: registry_pb2.ListDocumentsRequest) -> ListPage[registry_pb2.CatalogueDocument]:
        """Rejected submissions by id."""
        rows = Rows(self._engine, tables.submissions, Row)
        return Listing(rows, request, rows.c.submission_id).page(
            rows.select(state="rejected"),
            size=DOCUMENTS,
            read=lambda row: registry_pb2.CatalogueDocument(rejected=row.payload),
        )

    def flow(self, since: datetime | None) -> registry_pb2.GetFlowResponse:
        """Counts of submissions by state."""
        table = tables.submissions
        query = select(table.c.state, table.c.reason, table.c.findings)
        if since is not None:
            query = query.where(table.c.create_time >= since)
        response = registry_pb2.GetFlowResponse()
        letters = select(tables.dead_letters.c.topic, func.count()).group_by(tables.dead_letters.c.topic)
        with transaction(self._engine) as connection:
            for state, reason, findings in connection.execute(query):
                response.ingested += state in ("ingested", "anonymized")
                response.anonymized += state == "anonymized"
                if state == "rejected" and reason != EXPIRED:
                    response.rejected[reason] += 1
                for entity_type, count in findings.items():
                    response.findings[entity_type] += count
            response.dead_lettered.update(dict(connection.execute(letters).all()))
            for rejection in connection.scalars(_expired(since)):
                # One rejection stands for all events that expired together.
                response.rejected[EXPIRED] += min(max(rejection.expired.count, 1), MAX_EXPIRED)
        return response

    def facts(self, kind: FactKind, specialist: str, limit: int) -> list[bytes]:
        """Payloads of a specialist's facts of a kind, newest first."""
        page = Rows(self._engine, tables.facts, Row).newest_first(limit, kind=kind, specialist=specialist)
        return [row.payload for row in page]

    def list_datasets(
        self, request: registry_pb2.ListDatasetsRequest, specialists: Collection[str] = ()
    ) -> ListPage[models_pb2.DatasetBuilt]:
        """Datasets, newest first; without specialists, of all of them."""
        facts = Rows(self._engine, tables.facts, Row)
        return Listing(facts, request, facts.c.position, descending=True).page(
            facts.select(kind=FactKind.DATASET, **_among("specialist", specialists)),
            read=lambda row: models_pb2.DatasetBuilt.FromString(row.payload),
        )

    def list_adapters(
        self, request: registry_pb2.ListAdaptersRequest, specialists: Collection[str] = ()
    ) -> ListPage[registry_pb2.CatalogueAdapter]:
        """Adapters, newest first; without specialists, of all of them."""
        facts = Rows(self._engine, tables.facts, Row)
        query = facts.select(kind=FactKind.ADAPTER, **_among("specialist", specialists))
        return self._page_adapters(request, query, facts.c.position, descending=True)

    def list_waiting(
        self, request: registry_pb2.ListApprovalsRequest, specialists: Collection[str] = ()
    ) -> ListPage[registry_pb2.CatalogueAdapter]:
        """Adapters that wait for approval, oldest first; without specialists, of all of them."""
        facts, approvals = Rows(self._engine, tables.facts, Row), tables.approvals
        query = facts.select(kind=FactKind.ADAPTER, **_among("specialist", specialists))
        query = query.join(approvals, approvals.c.adapter_digest == facts.c.fact_id)
        query = query.where(approvals.c.state == Approval.WAITING.value)
        waits = registry_pb2.ADAPTER_STATE_WAITING_FOR_APPROVAL
        return self._page_adapters(request, query, approvals.c.position, keep=lambda item: item.state == waits)

    def _page_adapters(
        self,
        request: registry_pb2.ListAdaptersRequest | registry_pb2.ListApprovalsRequest,
        query: Select[Any],
        key: ColumnElement[int],
        *,
        descending: bool = False,
        keep: Callable[[registry_pb2.CatalogueAdapter], bool] = lambda item: True,
    ) -> ListPage[registry_pb2.CatalogueAdapter]:
        facts, evaluations = Rows(self._engine, tables.facts, Row), tables.evaluations
        reasons = select(evaluations.c.reasons).where(evaluations.c.adapter_digest == facts.c.fact_id)
        newest = reasons.order_by(evaluations.c.position.desc()).limit(1).scalar_subquery()
        derived = {"state": lambda item: read(item, "state")}
        listing = Listing(facts, request, key, descending=descending, columns={"reasons": newest}, derived=derived)
        return listing.page(query, read=lambda row: self._catalogue(row.payload), keep=keep)

    def _catalogue(self, payload: bytes) -> registry_pb2.CatalogueAdapter:
        return self.catalogue_adapter(models_pb2.AdapterTrained.FromString(payload))

    def fact(self, kind: FactKind, fact_id: str) -> bytes | None:
        """A fact's payload, or None."""
        row = Rows(self._engine, tables.facts, Row).find(kind=kind, fact_id=fact_id)
        return None if row is None else row.payload

    def facts_by_digest(self, kind: FactKind, prefix: str, specialists: Collection[str], limit: int) -> list[bytes]:
        """Payloads of datasets or adapters whose digest begins with the prefix, one per digest. Without specialists, of all of them."""
        facts = Rows(self._engine, tables.facts, Row)
        # The id of a dataset is `DIGEST/SPECIALIST`, because specialists can share one.
        digest = func.split_part(facts.c.fact_id, "/", 1)
        of_specialists = {"specialist": [*specialists]} if specialists else {}
        query = facts.select(facts.c.fact_id.startswith(prefix, autoescape=True), kind=kind, **of_specialists)
        query = query.ext(distinct_on(digest)).order_by(digest, facts.c.fact_id).limit(limit)
        return [row.payload for row in facts.fetch(query)]

    def dataset(self, payload: bytes) -> registry_pb2.GetDatasetResponse:
        """A dataset, and what its manifest says of tokens and of what was left out, as far as it was read."""
        response = registry_pb2.GetDatasetResponse(dataset=models_pb2.DatasetBuilt.FromString(payload))
        row = Rows(self._engine, tables.datasets, Row).find(digest=response.dataset.digest)
        if row is not None:
            response.train_tokens, response.held_out_tokens = row.train_tokens, row.held_out_tokens
            for reason, count in row.skipped.items():
                response.skipped[reason].CopyFrom(registry_pb2.SkippedCount(**count))
            response.imports.extend(registry_pb2.ImportCount(**entry) for entry in row.imports)
            for tag, count in row.languages.items():
                response.languages[tag].CopyFrom(registry_pb2.LanguageCount(**count))
            response.teacher_tokens = row.teacher_tokens
        return response

    def catalogue_adapter(self, adapter: models_pb2.AdapterTrained) -> registry_pb2.CatalogueAdapter:
        """An adapter with its newest evaluation, the gate's verdict, its state, and what can be done next."""
        serving = self.serving(adapter.specialist)
        with transaction(self._engine) as connection:
            records = read_records(connection, adapter.specialist, adapter.digest)
        facts = to_facts(adapter, records, serving.decision if serving else models_pb2.SpecialistServing())
        state = decide_state(facts)
        entry = registry_pb2.CatalogueAdapter(
            adapter=adapter,
            tainted=records.taint is not None,
            state=wire.ADAPTER_STATES[state],
            advice=advise(state, adapter.specialist, adapter.digest),
        )
        if records.evaluation is not None:
            entry.evaluation.CopyFrom(records.evaluation.payload)
            entry.decision = wire.DECISIONS[Decision(records.evaluation.decision)]
            entry.reasons.extend(records.evaluation.reasons)
        if records.operator_decision is not None:
            entry.operator_decision.CopyFrom(wire.from_decision(records.operator_decision))
        if serving is not None and serving.decision.adapter_digest == adapter.digest:
            entry.serving = True
            entry.ready_replicas = len(serving.rollout)
            entry.serving_replicas = sum(replica.serving for replica in serving.rollout)
        if serving is not None and serving.decision.canary.adapter_digest == adapter.digest:
            entry.canary_percent = serving.decision.canary.percent
        return entry

    def draft(self, draft_id: str) -> drafts_pb2.DraftCreated:
        """The newest version of a draft; empty if it is unknown."""
        return drafts_pb2.DraftCreated.FromString(self.fact(FactKind.DRAFT, draft_id) or b"")

    def trace(self, draft_id: str) -> registry_pb2.TraceResponse:
        """A draft with its adapter, datasets and evaluation; without documents, which not every role may see."""
        response = registry_pb2.TraceResponse(draft=self.draft(draft_id))
        adapter = self.fact(FactKind.ADAPTER, response.draft.adapter_digest)
        if adapter is not None:
            entry = self._catalogue(adapter)
            response.adapter.CopyFrom(entry.adapter)
            response.state = entry.state
            override = self._override(response.draft)
            if override is not None:
                response.operator_decision.CopyFrom(wire.from_decision(override))
            if entry.HasField("evaluation"):
                response.evaluation.CopyFrom(entry.evaluation)
                response.decision = entry.decision
                response.reasons.extend(entry.reasons)
            self._add_datasets(response, entry.adapter)
        return response

    def _add_datasets(self, response: registry_pb2.TraceResponse, adapter: models_pb2.AdapterTrained) -> None:
        """Add the dataset of documents that an adapter learned from, or else that of its stage, and the one of judgements."""
        preferences = adapter.preference_dataset_digest
        documents = adapter.sft_dataset_digest or ("" if preferences else adapter.dataset_digest)
        for message, digest in ((response.dataset, documents), (response.preference_dataset, preferences)):
            payload = self.fact(FactKind.DATASET, dataset_fact_id(digest, adapter.specialist)) if digest else None
            if payload is not None:
                message.ParseFromString(payload)

    def _override(self, draft: drafts_pb2.DraftCreated) -> OperatorDecision | None:
        """The override by which a draft's adapter served when it answered."""
        servings = Rows(self._engine, tables.servings, Row)
        serving = servings.find(specialist=draft.specialist, generation=draft.generation)
        if draft.canary or serving is None or not serving.payload.overridden:
            return None
        return SqlOperatorDecisions(self._engine).find_override(draft.specialist, draft.generation)

    def leaderboard(self, specialist: Specialist, metric: str) -> registry_pb2.GetLeaderboardResponse:
        """The newest adapters and the untuned models, ranked by the metric, or by the gate's primary one if it is empty."""
        trained = self.facts(FactKind.ADAPTER, specialist.name, MAX_RANKED + 1)
        adapters = [self._catalogue(payload) for payload in trained[:MAX_RANKED]]
        pins = Rows(self._engine, tables.pins, Row)
        pinned = pins.values(pins.c.entry, specialist=specialist.name)
        if not metric:
            newest = next((item.evaluation for item in adapters if item.HasField("evaluation")), None)
            evaluation = wire.to_evaluation(newest or models_pb2.AdapterEvaluated())
            metric = find_primary(specialist.gate, evaluation).metric
        leaderboard = make_leaderboard(adapters, metric, pinned)
        if len(trained) > MAX_RANKED:
            leaderboard.skipped = self.count_facts(FactKind.ADAPTER, specialist.name) - MAX_RANKED
        return leaderboard

    def count_facts(self, kind: FactKind, specialist: str) -> int:
        """The number of a specialist's facts of a kind."""
        return Rows(self._engine, tables.facts, Row).count(kind=kind, specialist=specialist)

    def list_decisions(
        self, request: registry_pb2.ListDecisionsRequest, specialists: Collection[str] = ()
    ) -> ListPage[OperatorDecision]:
        """Operators' decisions, newest first; without specialists, about all of them."""
        rows = SqlOperatorDecisions(self._engine)
        columns = {"verdict": rows.c.verdict_decision}
        listing = Listing(rows, request, rows.c.position, descending=True, columns=columns)
        return listing.page(rows.select(**_among("specialist", specialists)))

    def list_keys(
        self, request: registry_pb2.ListKeysRequest, keep: Callable[[ApiKey], bool] = lambda key: True
    ) -> ListPage[ApiKey]:
        """API keys by id."""
        keys = Rows(self._engine, tables.keys, ApiKey)
        state = case((keys.c.revoked, "revoked"), (keys.c.expire_time <= func.now(), "expired"), else_="active")
        columns = {"state": state, "role": func.replace(keys.c.role, "ROLE_", "")}
        return Listing(keys, request, keys.c.key_id, columns=columns).page(keys.select(), keep=keep)

    def list_people(
        self, request: people_pb2.ListPeopleRequest, keep: Callable[[Person], bool] = lambda person: True
    ) -> ListPage[Person]:
        """People, newest first."""
        people = Rows(self._engine, tables.people, Person)
        until = people.c.invitation_expire_time
        state = case(
            (until <= func.now(), "expired"),
            (until.is_not(None), "invited"),
            (people.c.removed, "removed"),
            else_="active",
        )
        columns = {"state": state, "role": func.replace(people.c.role, "ROLE_", "")}
        # Page tokens are in addresses of the console.
        listing = Listing(people, request, people.c.position, descending=True, columns=columns, private={"name"})
        return listing.page(people.select(), keep=keep)


def dataset_fact_id(digest: str, specialist: str) -> str:
    """Two specialists can have the same rows, and so the same digest."""
    return f"{digest}/{specialist}"


def _generation() -> ColumnElement[int]:
    """The newest generation of a specialist, 0 before the first."""
    served = tables.servings.c
    newest = select(func.max(served.generation)).where(served.specialist == tables.specialists.c.name)
    return func.coalesce(newest.scalar_subquery(), 0).label("generation")


def _among(column: str, names: Collection[str]) -> dict[str, list[str]]:
    return {column: [*names]} if names else {}


def _selected(selector: Specialist | None) -> list[ColumnElement[bool]]:
    if selector is None:
        return []
    return [tables.documents.c[name].in_(values) for name, values in selector.selection.admitted.items()]


def _expired(since: datetime | None) -> Select[Any]:
    """The rejections of events that expired."""
    table = tables.submissions
    query = select(table.c.payload).where(table.c.state == "rejected", table.c.reason == EXPIRED)
    return query if since is None else query.where(table.c.create_time >= since)
