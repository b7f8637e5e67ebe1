"""The catalogue in PostgreSQL: what the handlers write."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager

from sqlalchemy import Connection, Engine, Row, Table, delete, select
from sqlalchemy.dialects.postgresql import insert

from services.registry import wire
from services.registry.adapters import tables
from services.registry.adapters.canaries import SqlCanaries
from services.registry.adapters.erasures import SqlErasures
from services.registry.domain import Adapter, ApiKey, DocumentState, Draft, Fact, FactKind, Judgement, Specialist
from services.registry.gate import Decision, Evaluation
from services.registry.rollouts import KEPT, Replica
from services.registry.serving import Serving
from tailor.api.events.v1 import drafts_pb2, models_pb2
from tailor.events.envelope import derive_id
from tailor.events.outbox import Outbox
from tailor.sql import transaction


class SqlTransaction(SqlErasures, SqlCanaries):
    """One transaction over the catalogue; satisfies `handlers.Transaction`."""

    def __init__(self, connection: Connection, outbox: Outbox) -> None:
        self._connection = connection
        self._outbox = outbox

    def specialist(self, name: str) -> Specialist | None:
        """A definition, or None."""
        payload = self._connection.scalar(select(tables.specialists.c.payload).where(tables.specialists.c.name == name))
        return None if payload is None else wire.to_specialist(models_pb2.SpecialistChanged.FromString(payload))

    def lock_specialist(self, name: str) -> Specialist | None:
        """A definition, or None; nobody else changes it, or what it serves, before this transaction ends."""
        query = select(tables.specialists.c.payload).where(tables.specialists.c.name == name).with_for_update()
        payload = self._connection.scalar(query)
        return None if payload is None else wire.to_specialist(models_pb2.SpecialistChanged.FromString(payload))

    def save_specialist(self, specialist: Specialist) -> None:
        """Keep a definition and state it."""
        message = wire.from_specialist(specialist)
        row = {
            "name": specialist.name,
            "revision": specialist.revision,
            "payload": message.SerializeToString(deterministic=True),
        }
        self._upsert(tables.specialists, row, ["name"])
        event_id = derive_id("evt", "specialist", specialist.name, specialist.revision)
        self._outbox.add(self._connection, "specialist.changed.v1", specialist.name, message, event_id)

    def serving(self, name: str) -> Serving:
        """What serves now; generation 0 before the first promotion."""
        servings = self.servings(name)
        return servings[0] if servings else Serving(name)

    def servings(self, name: str) -> Sequence[Serving]:
        """Everything that served, newest first."""
        table = tables.servings
        query = select(table.c.payload).where(table.c.specialist == name).order_by(table.c.generation.desc())
        return [
            wire.to_serving(models_pb2.SpecialistServing.FromString(row.payload))
            for row in self._connection.execute(query)
        ]

    def save_serving(self, serving: Serving) -> None:
        """Keep a decision and state it; the primary key refuses a second decision for a generation."""
        message = wire.from_serving(serving)
        payload = message.SerializeToString(deterministic=True)
        row = {
            "specialist": serving.specialist,
            "generation": serving.generation,
            "adapter_digest": serving.adapter_digest,
        }
        self._connection.execute(insert(tables.servings).values(**row, payload=payload))
        event_id = derive_id("evt", "serving", serving.specialist, serving.generation)
        self._outbox.add(self._connection, "specialist.serving.v1", serving.specialist, message, event_id)

    def save_document_state(self, state: DocumentState) -> None:
        """Keep where a submission is; `ingested` never replaces how it ended."""
        if state.state == "anonymized":
            self._save_document(state)
        table = tables.submissions
        row = {
            "submission_id": state.submission_id,
            "document_id": state.document_id,
            "state": state.state,
            "reason": state.reason,
            "findings": dict(state.findings),
            "payload": state.payload if state.state == "rejected" else b"",
            **_labels(state),
        }
        statement = insert(table).values(row)
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
            "source": state.source,
            "department": state.department,
            "confidentiality": state.confidentiality,
            "payload": state.payload,
            "format": state.format,
            "language": state.language,
            "char_count": state.char_count,
            "findings": dict(state.findings),
        }
        statement = insert(table).values(row)
        changed = {name: statement.excluded[name] for name in row if name != "document_id"}
        newer = statement.excluded.sequence >= table.c.sequence
        self._connection.execute(
            statement.on_conflict_do_update(index_elements=["document_id"], set_=changed, where=newer)
        )

    def save_fact(self, fact: Fact) -> None:
        """Keep a fact."""
        row = {"kind": fact.kind.value, "fact_id": fact.fact_id, "specialist": fact.specialist, "payload": fact.payload}
        self._upsert(tables.facts, row, ["kind", "fact_id"])

    def _fact(self, kind: FactKind, fact_id: str) -> bytes | None:
        table = tables.facts
        return self._connection.scalar(
            select(table.c.payload).where(table.c.kind == kind.value, table.c.fact_id == fact_id)
        )

    def save_adapter(self, adapter: Adapter, payload: bytes) -> None:
        """Keep an adapter."""
        self.save_fact(Fact(FactKind.ADAPTER, adapter.digest, adapter.specialist, payload))

    def adapter(self, digest: str) -> Adapter | None:
        """An adapter, or None."""
        payload = self._fact(FactKind.ADAPTER, digest)
        return None if payload is None else wire.to_adapter(models_pb2.AdapterTrained.FromString(payload))

    def save_evaluation(self, evaluation: Evaluation, decision: Decision, why: Sequence[str]) -> None:
        """Keep an evaluation and what the gate made of it."""
        row = {
            "evaluation_id": evaluation.evaluation_id,
            "adapter_digest": evaluation.adapter_digest,
            "decision": decision.value,
            "refusals": list(why),
            "payload": evaluation.payload,
        }
        self._upsert(tables.evaluations, row, ["evaluation_id"])

    def decision(self, evaluation_id: str) -> Decision | None:
        """What the gate made of an evaluation, or None if it has not decided."""
        table = tables.evaluations
        value = self._connection.scalar(select(table.c.decision).where(table.c.evaluation_id == evaluation_id))
        return None if value is None else Decision(value)

    def newest_evaluation(self, adapter_digest: str) -> Evaluation | None:
        """An adapter's newest evaluation, or None."""
        table = tables.evaluations
        query = (
            select(table.c.payload)
            .where(table.c.adapter_digest == adapter_digest)
            .order_by(table.c.position.desc())
            .limit(1)
        )
        payload = self._connection.scalar(query)
        return None if payload is None else wire.to_evaluation(models_pb2.AdapterEvaluated.FromString(payload))

    def save_draft(self, draft: Draft, payload: bytes) -> None:
        """Keep a draft's provenance."""
        self.save_fact(Fact(FactKind.DRAFT, draft.draft_id, draft.specialist, payload))

    def draft(self, draft_id: str) -> Draft | None:
        """A draft's provenance, or None."""
        payload = self._fact(FactKind.DRAFT, draft_id)
        return None if payload is None else wire.to_draft(drafts_pb2.DraftCreated.FromString(payload))

    def judgement(self, judgement_id: str) -> Judgement | None:
        """A judgement, or None."""
        table = tables.judgements
        payload = self._connection.scalar(select(table.c.payload).where(table.c.judgement_id == judgement_id))
        return None if payload is None else wire.to_judgement(drafts_pb2.JudgementRecorded.FromString(payload))

    def save_judgement(self, judgement: Judgement) -> None:
        """Keep a judgement and state it, once."""
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

    def save_key(self, key: ApiKey, secret_sha256: str) -> None:
        """Keep a key; a known key keeps its hash."""
        row = {
            "key_id": key.key_id,
            "secret_sha256": secret_sha256,
            "name": key.name,
            "role": key.role,
            "specialists": list(key.specialists),
            "revoked": key.revoked,
            "create_time": key.create_time,
            "expire_time": key.expire_time,
            "methods": list(key.methods),
            "calls_per_minute": key.calls_per_minute,
        }
        statement = insert(tables.keys).values(row)
        changed = {"revoked": statement.excluded.revoked}
        self._connection.execute(statement.on_conflict_do_update(index_elements=["key_id"], set_=changed))

    def key(self, key_id: str) -> ApiKey | None:
        """A key, or None."""
        row = self._connection.execute(select(tables.keys).where(tables.keys.c.key_id == key_id)).first()
        return None if row is None else to_key(row)

    def key_by_hash(self, secret_sha256: str) -> ApiKey | None:
        """The key with this hash, or None."""
        row = self._connection.execute(select(tables.keys).where(tables.keys.c.secret_sha256 == secret_sha256)).first()
        return None if row is None else to_key(row)

    def save_replica(self, replica: Replica) -> None:
        """Keep what a replica last said, and forget those that are long gone."""
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
        self._connection.execute(delete(table).where(table.c.seen_time < replica.seen_time - KEPT))

    def save_dead_letter(self, event_id: str, topic: str) -> None:
        """Count an event that was set aside, once."""
        self._connection.execute(
            insert(tables.dead_letters).values(event_id=event_id, topic=topic).on_conflict_do_nothing()
        )

    def _upsert(self, table: Table, row: Mapping[str, object], key: list[str]) -> None:
        statement = insert(table).values(row)
        changed = {name: statement.excluded[name] for name in row if name not in key}
        self._connection.execute(statement.on_conflict_do_update(index_elements=key, set_=changed))


def _labels(state: DocumentState) -> dict[str, str]:
    """What the audit groups rejections by; a malformed submission may have said anything."""
    return {
        "source": state.source[:64],
        "department": state.department[:64],
        "confidentiality": state.confidentiality[:64],
        "format": state.format[:32],
        "stage": state.stage,
    }


def to_key(row: Row) -> ApiKey:  # type: ignore[type-arg]
    """A key from its row."""
    return ApiKey(
        key_id=row.key_id,
        name=row.name,
        role=row.role,
        specialists=tuple(row.specialists),
        create_time=row.create_time,
        expire_time=row.expire_time,
        revoked=row.revoked,
        methods=tuple(row.methods),
        calls_per_minute=row.calls_per_minute,
    )


def begin(engine: Engine, outbox: Outbox) -> Callable[[], AbstractContextManager[SqlTransaction]]:
    """What the handlers begin a transaction with."""

    @contextmanager
    def opened() -> Iterator[SqlTransaction]:
        with transaction(engine) as connection:
            yield SqlTransaction(connection, outbox)

    return opened
