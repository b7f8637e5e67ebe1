"""The catalogue in PostgreSQL: what the handlers write."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict
from datetime import timedelta
from typing import Any

from sqlalchemy import Connection, Engine, Row, text

from services.registry import wire
from services.registry.adapters import tables
from services.registry.adapters.canaries import SqlCanaries
from services.registry.adapters.erasures import SqlErasures, SqlLineage
from services.registry.adapters.expert_decisions import SqlExpertDecisions
from services.registry.adapters.feedback import SqlFeedback
from services.registry.adapters.ledger import SqlUsage
from services.registry.adapters.operators import SqlApprovals, SqlOperatorDecisions
from services.registry.adapters.outcomes import SqlOutcomes
from services.registry.adapters.people import SqlPeople, SqlSessions
from services.registry.adapters.stored_judgements import SqlJudgements
from services.registry.domain import (
    Adapter,
    ApiKey,
    Decision,
    DocumentState,
    Draft,
    Evaluation,
    Fact,
    FactKind,
    Replica,
    Serving,
    Specialist,
)
from tailor.api.events.v1 import drafts_pb2, models_pb2
from tailor.codec import decode
from tailor.events.envelope import derive_id
from tailor.events.outbox import Outbox
from tailor.rows import Rows
from tailor.sql import transaction

# Replica names come and go; forget those that have not reported for this many days.
REPLICA_DAYS = 1
CURRENT_TRANSACTION = text("pg_current_xact_id()::text::bigint")


class SqlSpecialists(Rows[Specialist]):
    """Definitions, by name."""

    def __init__(self, connection: Connection, outbox: Outbox) -> None:
        super().__init__(connection, tables.specialists, Specialist)
        self._connection = connection
        self._outbox = outbox

    def read(self, row: Row[Any], **given: Any) -> Specialist:
        return wire.to_specialist(row.payload)

    def save(self, specialist: Specialist) -> None:
        """Store a definition and publish it."""
        message = wire.from_specialist(specialist)
        self.upsert(specialist, payload=message, **wire.list_specialist(message))
        event_id = derive_id("evt", "specialist", specialist.name, specialist.revision)
        self._outbox.add(self._connection, "specialist.changed.v1", specialist.name, message, event_id)


class SqlServings(Rows[Serving]):
    """The adapter that each specialist serves, by generation."""

    def __init__(self, connection: Connection, outbox: Outbox) -> None:
        super().__init__(connection, tables.servings, Serving, "generation")
        self._connection = connection
        self._outbox = outbox

    def read(self, row: Row[Any], **given: Any) -> Serving:
        return decode(Serving, row.payload)

    def current(self, name: str) -> Serving:
        """Generation 0 before the first promotion."""
        return self.newest(specialist=name) or Serving(name)

    def list(self, name: str) -> Sequence[Serving]:
        """All generations, newest first."""
        return self.all(specialist=name, order=self.c.generation.desc())

    def save(self, serving: Serving) -> None:
        """Store a decision and publish it. The primary key refuses a second decision for a generation."""
        message = wire.from_serving(serving)
        self.insert(serving, payload=message)
        event_id = derive_id("evt", "serving", serving.specialist, serving.generation)
        self._outbox.add(self._connection, "specialist.serving.v1", serving.specialist, message, event_id)


class SqlFacts(Rows[Fact]):
    """Facts of other services."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection, tables.facts, Fact)
        self._connection = connection
        self._documents = Rows(connection, tables.documents, Row)

    def write(self, value: Fact | None = None, /, **given: object) -> dict[str, Any]:
        return super().write(value, **{**({} if value is None else wire.list_fact(value)), **given})

    def _find(self, kind: FactKind, fact_id: str) -> bytes | None:
        payload: bytes | None = self.value(self.c.payload, kind=kind, fact_id=fact_id)
        return payload

    def save_adapter(self, adapter: Adapter, payload: bytes) -> None:
        self.upsert(Fact(FactKind.ADAPTER, adapter.digest, adapter.specialist, payload))
        Rows(self._connection, tables.adapters, Adapter).upsert(adapter)

    def find_adapter(self, digest: str) -> Adapter | None:
        payload = self._find(FactKind.ADAPTER, digest)
        return None if payload is None else wire.to_adapter(models_pb2.AdapterTrained.FromString(payload))

    def save_draft(self, draft: Draft, payload: bytes) -> None:
        self.upsert(Fact(FactKind.DRAFT, draft.draft_id, draft.specialist, payload))
        if draft.text and draft.specialist and not draft.edit_of:
            SqlExpertDecisions(self._connection).save_draft(draft)

    def find_draft(self, draft_id: str) -> Draft | None:
        payload = self._find(FactKind.DRAFT, draft_id)
        return None if payload is None else decode(Draft, drafts_pb2.DraftCreated.FromString(payload))

    def find_document(self, document_id: str) -> DocumentState | None:
        """The newest version of a document in the catalogue."""
        row = self._documents.find(document_id=document_id)
        return None if row is None else wire.anonymized_state(row.payload)

    def drop_document(self, document_id: str) -> None:
        """Remove a document from the catalogue. The states of its submissions stay."""
        self._documents.delete(document_id=document_id)

    def save_document_state(self, state: DocumentState) -> None:
        """Store a submission's state. `ingested` never replaces a later state."""
        if state.state == "anonymized":
            documents = Rows(self._connection, tables.documents, DocumentState)
            is_newer = documents.new.sequence >= documents.c.sequence
            documents.upsert(state, where=is_newer, changed=CURRENT_TRANSACTION, **wire.list_document(state))
        submissions = Rows(self._connection, tables.submissions, DocumentState)
        payload = state.payload if state.state == "rejected" else b""
        # Columns that the audit groups rejections by; a malformed submission can have labels of any length.
        short = {name: label[:64] for name, label in asdict(state.labels).items()} | {"format": state.format[:32]}
        is_not_late = submissions.new.state != "ingested"
        submissions.upsert(
            state, where=is_not_late, keep=("document_id",), payload=payload, **short, **wire.list_document(state)
        )

    def save_replica(self, replica: Replica) -> None:
        """Store a replica's report unless a newer one is known."""
        replicas = Rows(self._connection, tables.replicas, Replica)
        replicas.upsert(replica, where=replicas.new.seen_time >= replicas.c.seen_time)
        replicas.delete(replicas.c.seen_time < replica.seen_time - timedelta(days=REPLICA_DAYS))

    def list_merged(self) -> frozenset[str]:
        """The adapters that bases of inference deployments stand for: no other base serves them."""
        replicas = Rows(self._connection, tables.replicas, Replica)
        return frozenset(replicas.values(replicas.c.adapter_digest, replicas.c.adapter_digest != ""))

    def save_dead_letter(self, event_id: str, topic: str) -> None:
        Rows(self._connection, tables.dead_letters, Row).add(event_id=event_id, topic=topic)


class SqlEvaluations(Rows[Evaluation]):
    """Evaluations and the gate's decisions."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection, tables.evaluations, Evaluation)

    def read(self, row: Row[Any], **given: Any) -> Evaluation:
        return wire.to_evaluation(row.payload)

    def find_decision(self, evaluation_id: str) -> Decision | None:
        value = self.value(self.c.decision, evaluation_id=evaluation_id)
        return None if value is None else Decision(value)


class Transaction:
    """The catalogue's database within one transaction. What it publishes is sent after the commit."""

    def __init__(self, connection: Connection, outbox: Outbox) -> None:
        self.connection = connection
        self.specialists = SqlSpecialists(connection, outbox)
        self.servings = SqlServings(connection, outbox)
        self.facts = SqlFacts(connection)
        self.evaluations = SqlEvaluations(connection)
        self.judgements = SqlJudgements(connection, outbox)
        self.keys = Rows(connection, tables.keys, ApiKey)
        self.people = SqlPeople(connection)
        self.sessions = SqlSessions(connection)
        self.canaries = SqlCanaries(connection)
        self.approvals = SqlApprovals(connection)
        self.decisions = SqlOperatorDecisions(connection)
        self.pins = Rows(connection, tables.pins, Row)
        self.erasures = SqlErasures(connection, outbox)
        self.lineage = SqlLineage(connection)
        self.feedback = SqlFeedback(connection)
        self.outcomes = SqlOutcomes(connection)
        self.expert_decisions = SqlExpertDecisions(connection)
        self.usage = SqlUsage(connection)


Begin = Callable[[], AbstractContextManager[Transaction]]


def transactions(engine: Engine, outbox: Outbox) -> Begin:
    """The `Begin` of the handlers. Leaving the context commits, or rolls back on an exception."""

    @contextmanager
    def begin() -> Iterator[Transaction]:
        with transaction(engine) as connection:
            yield Transaction(connection, outbox)

    return begin
