"""The catalogue in PostgreSQL: what callers read, page by page, in the events' own messages."""

from collections.abc import Sequence
from datetime import UTC, datetime

from sqlalchemy import ColumnElement, Engine, func, select

from services.registry import wire
from services.registry.adapters import tables
from services.registry.adapters.audit import AuditQueries
from services.registry.adapters.canaries import newest_canary
from services.registry.adapters.sql import to_key
from services.registry.domain import ApiKey, FactKind, Specialist
from services.registry.gate import Decision
from services.registry.rollouts import Reached, Replica, is_finished
from tailor.api.events.v1 import documents_pb2, drafts_pb2, models_pb2
from tailor.api.registry.v1 import registry_pb2
from tailor.sql import transaction

REJECTED_PAGE = "r:"

DECISIONS = {
    Decision.PASSED: registry_pb2.DECISION_PASSED,
    Decision.REFUSED: registry_pb2.DECISION_REFUSED,
    Decision.STALE: registry_pb2.DECISION_STALE,
}


class Queries(AuditQueries):
    """Reads over the catalogue. Page tokens are the last key of the page before."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def specialists(self, after: str, limit: int) -> list[registry_pb2.GetSpecialistResponse]:
        """Specialists by name, each with what serves."""
        table = tables.specialists
        query = select(table.c.payload).where(table.c.name > after).order_by(table.c.name).limit(limit)
        with transaction(self._engine) as connection:
            payloads = connection.scalars(query).all()
        definitions = [models_pb2.SpecialistChanged.FromString(payload) for payload in payloads]
        return [
            registry_pb2.GetSpecialistResponse(
                specialist=definition, serving=self.serving(definition.name), canary=self.canary(definition.name)
            )
            for definition in definitions
        ]

    def canary(self, name: str) -> registry_pb2.Canary | None:
        """A specialist's newest canary with what is, or was, measured of it; None before the first."""
        with transaction(self._engine) as connection:
            found = newest_canary(connection, name)
        return None if found is None else wire.from_canary(found)

    def serving(self, name: str) -> registry_pb2.Serving | None:
        """What serves now and what the replicas said of it; None before the first promotion."""
        table = tables.servings
        query = select(table.c.payload).where(table.c.specialist == name).order_by(table.c.generation.desc()).limit(1)
        with transaction(self._engine) as connection:
            payload = connection.scalar(query)
        if payload is None:
            return None
        decision = models_pb2.SpecialistServing.FromString(payload)
        served = [
            models_pb2.AdapterServed.FromString(held) for _, held in self.facts(FactKind.SERVED, name, None, 1000)
        ]
        replicas = [one for one in served if one.generation == decision.generation]
        rollout = self._rollout(decision.base, replicas)
        return registry_pb2.Serving(
            decision=decision,
            replicas=replicas,
            finished=is_finished(rollout),
            rollout=map(wire.from_reached, rollout),
        )

    def facts_by_prefix(self, kind: FactKind, prefix: str, limit: int) -> list[tuple[str, bytes]]:
        """Specialist and payload of the facts of a kind whose id begins with the prefix, at most `limit`."""
        table = tables.facts
        is_match = (table.c.kind == kind.value) & table.c.fact_id.startswith(prefix, autoescape=True)
        query = select(table.c.specialist, table.c.payload).where(is_match).order_by(table.c.fact_id).limit(limit)
        with transaction(self._engine) as connection:
            return [(row.specialist, row.payload) for row in connection.execute(query)]

    def _rollout(self, base: str, served: Sequence[models_pb2.AdapterServed]) -> list[Reached]:
        """How far every ready replica of a base is, by name."""
        table, now = tables.replicas, datetime.now(UTC)
        query = select(table).where(table.c.base == base).order_by(table.c.replica)
        with transaction(self._engine) as connection:
            known = [Replica(row.replica, row.base, row.seen_time, row.leaving) for row in connection.execute(query)]
        said = {one.replica: one for one in served}
        return [
            Reached(replica, said[replica.name].serving, said[replica.name].reason)
            if replica.name in said
            else Reached(replica)
            for replica in known
            if replica.is_ready(now)
        ]

    def documents(self, selector: Specialist | None, after: str, limit: int) -> list[documents_pb2.DocumentAnonymized]:
        """Current documents by id, of those that a specialist selects."""
        table = tables.documents
        query = select(table.c.payload).where(table.c.document_id > after, *_selected(selector))
        with transaction(self._engine) as connection:
            payloads = connection.scalars(query.order_by(table.c.document_id).limit(limit)).all()
        return [documents_pb2.DocumentAnonymized.FromString(payload) for payload in payloads]

    def rejected(self, after: str, limit: int) -> list[documents_pb2.DocumentRejected]:
        """Rejected submissions by id."""
        table = tables.submissions
        query = select(table.c.payload).where(table.c.submission_id > after, table.c.state == "rejected")
        with transaction(self._engine) as connection:
            payloads = connection.scalars(query.order_by(table.c.submission_id).limit(limit)).all()
        return [documents_pb2.DocumentRejected.FromString(payload) for payload in payloads]

    def documents_by_id(self, document_ids: Sequence[str]) -> list[documents_pb2.DocumentAnonymized]:
        """Those of the documents that the catalogue holds."""
        table = tables.documents
        query = select(table.c.payload).where(table.c.document_id.in_(document_ids)).order_by(table.c.document_id)
        with transaction(self._engine) as connection:
            return [documents_pb2.DocumentAnonymized.FromString(payload) for payload in connection.scalars(query)]

    def flow(self, since: datetime | None) -> registry_pb2.GetFlowResponse:
        """Submissions counted by where they are."""
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
                if state == "rejected":
                    response.rejected[reason] += 1
                for entity_type, count in findings.items():
                    response.findings[entity_type] += count
            response.dead_lettered.update(dict(connection.execute(letters).tuples().all()))
        return response

    def facts(self, kind: FactKind, specialist: str, before: int | None, limit: int) -> list[tuple[int, bytes]]:
        """Positions and payloads of a kind's facts, newest first."""
        table = tables.facts
        query = select(table.c.position, table.c.payload).where(table.c.kind == kind.value)
        if specialist:
            query = query.where(table.c.specialist == specialist)
        if before is not None:
            query = query.where(table.c.position < before)
        with transaction(self._engine) as connection:
            return [
                (position, payload)
                for position, payload in connection.execute(query.order_by(table.c.position.desc()).limit(limit))
            ]

    def fact(self, kind: FactKind, fact_id: str) -> bytes | None:
        """One fact's payload, or None."""
        table = tables.facts
        with transaction(self._engine) as connection:
            return connection.scalar(
                select(table.c.payload).where(table.c.kind == kind.value, table.c.fact_id == fact_id)
            )

    def catalogue_adapter(self, adapter: models_pb2.AdapterTrained) -> registry_pb2.CatalogueAdapter:
        """An adapter with its newest evaluation, the gate's decision and whether it serves."""
        table = tables.evaluations
        query = select(table).where(table.c.adapter_digest == adapter.digest).order_by(table.c.position.desc()).limit(1)
        with transaction(self._engine) as connection:
            row = connection.execute(query).first()
            marked = connection.scalar(
                select(tables.taints.c.erasure_id).where(tables.taints.c.adapter_digest == adapter.digest)
            )
        found = registry_pb2.CatalogueAdapter(adapter=adapter, tainted=marked is not None)
        if row is not None:
            found.evaluation.ParseFromString(row.payload)
            found.decision = DECISIONS[Decision(row.decision)]
            found.refusals.extend(row.refusals)
        serving = self.serving(adapter.specialist)
        if serving is not None and serving.decision.adapter_digest == adapter.digest:
            found.serving = True
            found.ready_replicas = len(serving.rollout)
            found.serving_replicas = sum(one.serving for one in serving.rollout)
        if serving is not None and serving.decision.canary.adapter_digest == adapter.digest:
            found.canary_percent = serving.decision.canary.percent
        return found

    def draft(self, draft_id: str) -> drafts_pb2.DraftCreated:
        """A draft as it was stated last; empty where the catalogue holds none."""
        return drafts_pb2.DraftCreated.FromString(self.fact(FactKind.DRAFT, draft_id) or b"")

    def trace(self, draft_id: str) -> registry_pb2.TraceResponse:
        """A draft's way back to its dataset; the documents are added by who may see them."""
        found = registry_pb2.TraceResponse(draft=self.draft(draft_id))
        adapter = self.fact(FactKind.ADAPTER, found.draft.adapter_digest)
        if adapter is not None:
            entry = self.catalogue_adapter(models_pb2.AdapterTrained.FromString(adapter))
            found.adapter.CopyFrom(entry.adapter)
            if entry.HasField("evaluation"):
                found.evaluation.CopyFrom(entry.evaluation)
            dataset = self.fact(
                FactKind.DATASET, dataset_fact_id(entry.adapter.dataset_digest, entry.adapter.specialist)
            )
            if dataset is not None:
                found.dataset.ParseFromString(dataset)
        return found

    def keys(self, after: str, limit: int) -> list[ApiKey]:
        """Keys by id."""
        table = tables.keys
        query = select(table).where(table.c.key_id > after).order_by(table.c.key_id).limit(limit)
        with transaction(self._engine) as connection:
            return [to_key(row) for row in connection.execute(query)]


def dataset_fact_id(digest: str, specialist: str) -> str:
    """Two specialists may have the same rows."""
    return f"{digest}/{specialist}"


def _selected(selector: Specialist | None) -> list[ColumnElement[bool]]:
    if selector is None:
        return []
    table, selection = tables.documents, selector.selection
    fields = (
        (table.c.source, selection.sources),
        (table.c.department, selection.departments),
        (table.c.confidentiality, selection.confidentialities),
    )
    return [column.in_(admitted) for column, admitted in fields if admitted]
