"""The catalogue in PostgreSQL: what the handlers write."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict
from datetime import timedelta

from sqlalchemy import ColumnElement, Connection, Engine, Row, Table, delete, select, text, update
from sqlalchemy.dialects.postgresql import insert

from services.registry import wire
from services.registry.adapters import tables
from services.registry.adapters.canaries import SqlCanaries
from services.registry.adapters.erasures import SqlErasures, SqlLineage
from services.registry.adapters.feedback import SqlFeedback
from services.registry.adapters.judging import SqlJudging, save_stored_draft
from services.registry.adapters.ledger import SqlUsage
from services.registry.adapters.operators import SqlApprovals, SqlOperatorDecisions, SqlPins
from services.registry.adapters.outcomes import SqlOutcomes
from services.registry.adapters.people import SqlPeople, SqlSessions
from services.registry.adapters.rankings import read_round
from services.registry.adapters.scores import SqlDocumentScores
from services.registry.domain import (
    Adapter,
    ApiKey,
    Decision,
    DocumentState,
    Draft,
    Evaluation,
    Fact,
    FactKind,
    Judgement,
    Replica,
    Serving,
    Specialist,
    Verdict,
)
from tailor.api.events.v1 import documents_pb2, drafts_pb2, models_pb2
from tailor.codec import decode
from tailor.events.envelope import derive_id
from tailor.events.outbox import Outbox
from tailor.rounds import RoundProgress
from tailor.sql import transaction

# Replica names come and go; forget those that have not reported for this many days.
REPLICA_DAYS = 1
CURRENT_TRANSACTION = text("pg_current_xact_id()::text::bigint")


class SqlSpecialists:
    """Definitions, by name."""

    def __init__(self, connection: Connection, outbox: Outbox) -> None:
        self._connection = connection
        self._outbox = outbox

    def find(self, name: str) -> Specialist | None:
        payload = self._connection.scalar(select(tables.specialists.c.payload).where(tables.specialists.c.name == name))
        return None if payload is None else wire.to_specialist(models_pb2.SpecialistChanged.FromString(payload))

    def lock(self, name: str) -> Specialist | None:
        """Find a definition. Nobody else changes it, or what it serves, until the transaction ends."""
        query = select(tables.specialists.c.payload).where(tables.specialists.c.name == name).with_for_update()
        payload = self._connection.scalar(query)
        return None if payload is None else wire.to_specialist(models_pb2.SpecialistChanged.FromString(payload))

    def save(self, specialist: Specialist) -> None:
        """Store a definition and publish it."""
        message = wire.from_specialist(specialist)
        row = {
            "name": specialist.name,
            "revision": specialist.revision,
            "payload": message.SerializeToString(deterministic=True),
            "deleted": specialist.deleted,
        }
        upsert(self._connection, tables.specialists, row, ["name"])
        event_id = derive_id("evt", "specialist", specialist.name, specialist.revision)
        self._outbox.add(self._connection, "specialist.changed.v1", specialist.name, message, event_id)


class SqlServings:
    """The adapter that each specialist serves, by generation."""

    def __init__(self, connection: Connection, outbox: Outbox) -> None:
        self._connection = connection
        self._outbox = outbox

    def current(self, name: str) -> Serving:
        """Generation 0 before the first promotion."""
        servings = self.list(name)
        return servings[0] if servings else Serving(name)

    def list(self, name: str) -> Sequence[Serving]:
        """All generations, newest first."""
        table = tables.servings
        query = select(table.c.payload).where(table.c.specialist == name).order_by(table.c.generation.desc())
        return [
            decode(Serving, models_pb2.SpecialistServing.FromString(payload))
            for payload in self._connection.scalars(query)
        ]

    def save(self, serving: Serving) -> None:
        """Store a decision and publish it. The primary key refuses a second decision for a generation."""
        message = wire.from_serving(serving)
        row = {
            "specialist": serving.specialist,
            "generation": serving.generation,
            "adapter_digest": serving.adapter_digest,
            "payload": message.SerializeToString(deterministic=True),
        }
        self._connection.execute(insert(tables.servings).values(row))
        event_id = derive_id("evt", "serving", serving.specialist, serving.generation)
        self._outbox.add(self._connection, "specialist.serving.v1", serving.specialist, message, event_id)


class SqlFacts:
    """Facts of other services. Saving one again replaces it."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def save(self, fact: Fact) -> None:
        row = {"kind": fact.kind.value, "fact_id": fact.fact_id, "specialist": fact.specialist, "payload": fact.payload}
        upsert(self._connection, tables.facts, row, ["kind", "fact_id"])

    def _find(self, kind: FactKind, fact_id: str) -> bytes | None:
        table = tables.facts
        query = select(table.c.payload).where(table.c.kind == kind.value, table.c.fact_id == fact_id)
        return self._connection.scalar(query)

    def save_adapter(self, adapter: Adapter, payload: bytes) -> None:
        self.save(Fact(FactKind.ADAPTER, adapter.digest, adapter.specialist, payload))
        row = {
            "digest": adapter.digest,
            "dataset_digest": adapter.dataset_digest,
            "parent_digest": adapter.parent_digest,
            "reward_digest": adapter.reward_digest,
            "base_adapter_digest": adapter.base_adapter_digest,
        }
        upsert(self._connection, tables.adapters, row, ["digest"])

    def find_adapter(self, digest: str) -> Adapter | None:
        payload = self._find(FactKind.ADAPTER, digest)
        return None if payload is None else wire.to_adapter(models_pb2.AdapterTrained.FromString(payload))

    def save_draft(self, draft: Draft, payload: bytes) -> None:
        self.save(Fact(FactKind.DRAFT, draft.draft_id, draft.specialist, payload))
        if draft.text and draft.specialist and not draft.edit_of:
            save_stored_draft(self._connection, draft)

    def find_draft(self, draft_id: str) -> Draft | None:
        payload = self._find(FactKind.DRAFT, draft_id)
        return None if payload is None else decode(Draft, drafts_pb2.DraftCreated.FromString(payload))

    def find_document(self, document_id: str) -> DocumentState | None:
        """The newest version of a document in the catalogue."""
        query = select(tables.documents.c.payload).where(tables.documents.c.document_id == document_id)
        payload = self._connection.scalar(query)
        return None if payload is None else wire.anonymized_state(documents_pb2.DocumentAnonymized.FromString(payload))

    def drop_document(self, document_id: str) -> None:
        """Remove a document from the catalogue. The states of its submissions stay."""
        table = tables.documents
        self._connection.execute(delete(table).where(table.c.document_id == document_id))

    def save_document_state(self, state: DocumentState) -> None:
        """Store a submission's state. `ingested` never replaces a later state."""
        if state.state == "anonymized":
            self._save_document(state)
        # Columns that the audit groups rejections by; a malformed submission can have labels of any length.
        row = {
            "submission_id": state.submission_id,
            "document_id": state.document_id,
            "state": state.state,
            "reason": state.reason,
            "findings": dict(state.findings),
            "payload": state.payload if state.state == "rejected" else b"",
            **{name: label[:64] for name, label in asdict(state.labels).items()},
            "format": state.format[:32],
            "stage": state.stage,
        }
        statement = insert(tables.submissions).values(row)
        changed = {name: statement.excluded[name] for name in row if name not in ("submission_id", "document_id")}
        late = statement.excluded.state == "ingested"
        self._connection.execute(
            statement.on_conflict_do_update(index_elements=["submission_id"], set_=changed, where=~late)
        )

    def _save_document(self, state: DocumentState) -> None:
        table = tables.documents
        row = {
            "document_id": state.document_id,
            "sequence": state.sequence,
            **asdict(state.labels),
            "payload": state.payload,
            "format": state.format,
            "language": state.language,
            "char_count": state.char_count,
            "findings": dict(state.findings),
            "removed": dict(state.removed),
            "changed": CURRENT_TRANSACTION,
        }
        statement = insert(table).values(row)
        changed = {name: statement.excluded[name] for name in row if name != "document_id"}
        newer = statement.excluded.sequence >= table.c.sequence
        self._connection.execute(
            statement.on_conflict_do_update(index_elements=["document_id"], set_=changed, where=newer)
        )

    def save_replica(self, replica: Replica) -> None:
        """Store a replica's report unless a newer one is known."""
        table = tables.replicas
        row = {
            "replica": replica.name,
            "base": replica.base,
            "seen_time": replica.seen_time,
            "leaving": replica.leaving,
        }
        statement = insert(table).values(row)
        changed = {name: statement.excluded[name] for name in row if name != "replica"}
        newer = statement.excluded.seen_time >= table.c.seen_time
        self._connection.execute(statement.on_conflict_do_update(index_elements=["replica"], set_=changed, where=newer))
        oldest = replica.seen_time - timedelta(days=REPLICA_DAYS)
        self._connection.execute(delete(table).where(table.c.seen_time < oldest))

    def save_dead_letter(self, event_id: str, topic: str) -> None:
        statement = insert(tables.dead_letters).values(event_id=event_id, topic=topic)
        self._connection.execute(statement.on_conflict_do_nothing())


class SqlEvaluations:
    """Evaluations and the gate's decisions."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def save(self, evaluation: Evaluation, verdict: Verdict) -> None:
        row = {
            "evaluation_id": evaluation.evaluation_id,
            "adapter_digest": evaluation.adapter_digest,
            "specialist": evaluation.specialist,
            "decision": verdict.decision.value,
            "reasons": list(verdict.reasons),
            "payload": evaluation.payload,
        }
        upsert(self._connection, tables.evaluations, row, ["evaluation_id"])

    def find_decision(self, evaluation_id: str) -> Decision | None:
        table = tables.evaluations
        value = self._connection.scalar(select(table.c.decision).where(table.c.evaluation_id == evaluation_id))
        return None if value is None else Decision(value)

    def find_newest(self, adapter_digest: str) -> Evaluation | None:
        return self._newest(tables.evaluations.c.adapter_digest == adapter_digest)

    def find_newest_of(self, specialist: str) -> Evaluation | None:
        """The newest evaluation of any of a specialist's adapters."""
        return self._newest(tables.evaluations.c.specialist == specialist)

    def _newest(self, condition: ColumnElement[bool]) -> Evaluation | None:
        table = tables.evaluations
        query = select(table.c.payload).where(condition).order_by(table.c.position.desc()).limit(1)
        payload = self._connection.scalar(query)
        return None if payload is None else wire.to_evaluation(models_pb2.AdapterEvaluated.FromString(payload))


class SqlJudgements:
    """Experts' judgements."""

    def __init__(self, connection: Connection, outbox: Outbox) -> None:
        self._connection = connection
        self._outbox = outbox

    def find(self, judgement_id: str) -> Judgement | None:
        table = tables.judgements
        payload = self._connection.scalar(select(table.c.payload).where(table.c.judgement_id == judgement_id))
        return None if payload is None else wire.to_judgement(drafts_pb2.JudgementRecorded.FromString(payload))

    def measure_round(self, specialist: Specialist, new: Sequence[tuple[str, str]]) -> RoundProgress | None:
        """Progress towards the specialist's next round with new pairs of drafts, the better one first.

        None if its pipeline does not learn from rankings.
        """
        return read_round(self._connection, specialist, new)

    def save(self, judgement: Judgement) -> None:
        """Store a judgement and publish it, once."""
        message = wire.from_judgement(judgement)
        row = {
            "judgement_id": judgement.judgement_id,
            "specialist": judgement.specialist,
            "payload": message.SerializeToString(deterministic=True),
        }
        statement = insert(tables.judgements).values(row).on_conflict_do_nothing()
        if self._connection.execute(statement).rowcount:
            event_id = derive_id("evt", "judgement", judgement.judgement_id)
            self._outbox.add(self._connection, "judgement.recorded.v1", judgement.specialist, message, event_id)

    def retract(self, judgement: Judgement, specialist: Specialist) -> None:
        """Publish that its expert took it back, once. It no longer counts, and `find` still finds it."""
        table = tables.judgements
        is_new = (table.c.judgement_id == judgement.judgement_id, ~table.c.retracted)
        if self._connection.execute(update(table).where(*is_new).values(retracted=True)).rowcount:
            message = wire.from_retracted(judgement, read_round(self._connection, specialist))
            event_id = derive_id("evt", "judgement retracted", judgement.judgement_id)
            self._outbox.add(self._connection, "judgement.recorded.v1", judgement.specialist, message, event_id)


class SqlKeys:
    """API keys; of a secret, only the SHA-256."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def save(self, key: ApiKey, secret_sha256: str) -> None:
        """Store a key. A known key keeps its hash."""
        row = asdict(key) | {"secret_sha256": secret_sha256}
        statement = insert(tables.keys).values(row)
        changed = {"revoked": statement.excluded.revoked}
        self._connection.execute(statement.on_conflict_do_update(index_elements=["key_id"], set_=changed))

    def find(self, key_id: str) -> ApiKey | None:
        row = self._connection.execute(select(tables.keys).where(tables.keys.c.key_id == key_id)).first()
        return None if row is None else to_key(row)

    def find_by_hash(self, secret_sha256: str) -> ApiKey | None:
        row = self._connection.execute(select(tables.keys).where(tables.keys.c.secret_sha256 == secret_sha256)).first()
        return None if row is None else to_key(row)


def upsert(connection: Connection, table: Table, row: Mapping[str, object], key: Sequence[str]) -> None:
    """Insert a row, or replace the one with the same key."""
    statement = insert(table).values(row)
    changed = {name: statement.excluded[name] for name in row if name not in key}
    connection.execute(statement.on_conflict_do_update(index_elements=list(key), set_=changed))


def to_key(row: Row) -> ApiKey:  # type: ignore[type-arg]
    """An API key from its row."""
    values = row._asdict() | {"specialists": tuple(row.specialists), "methods": tuple(row.methods)}
    del values["secret_sha256"]
    return ApiKey(**values)


class Transaction:
    """The catalogue's database within one transaction. What it publishes is sent after the commit."""

    def __init__(self, connection: Connection, outbox: Outbox) -> None:
        self.connection = connection
        self.specialists = SqlSpecialists(connection, outbox)
        self.servings = SqlServings(connection, outbox)
        self.facts = SqlFacts(connection)
        self.evaluations = SqlEvaluations(connection)
        self.judgements = SqlJudgements(connection, outbox)
        self.keys = SqlKeys(connection)
        self.people = SqlPeople(connection)
        self.sessions = SqlSessions(connection)
        self.canaries = SqlCanaries(connection)
        self.approvals = SqlApprovals(connection)
        self.decisions = SqlOperatorDecisions(connection)
        self.pins = SqlPins(connection)
        self.erasures = SqlErasures(connection, outbox)
        self.lineage = SqlLineage(connection)
        self.document_scores = SqlDocumentScores(connection)
        self.feedback = SqlFeedback(connection)
        self.outcomes = SqlOutcomes(connection)
        self.judging = SqlJudging(connection)
        self.usage = SqlUsage(connection)


Begin = Callable[[], AbstractContextManager[Transaction]]


def transactions(engine: Engine, outbox: Outbox) -> Begin:
    """The `Begin` of the handlers. Leaving the context commits, or rolls back on an exception."""

    @contextmanager
    def begin() -> Iterator[Transaction]:
        with transaction(engine) as connection:
            yield Transaction(connection, outbox)

    return begin
