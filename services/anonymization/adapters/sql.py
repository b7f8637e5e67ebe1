"""The service's own database: what became of every version, and who asked for true values."""

import json
from dataclasses import asdict
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    Engine,
    Identity,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    delete,
    func,
    select,
)
from sqlalchemy.dialects.postgresql import insert

from services.anonymization.domain import Ingested, Outcome, Passed, Unreadable
from services.anonymization.spans import Span
from tailor.sql import transaction
from tailor.storage.ref import Ref

METADATA = MetaData()

ENTRIES = Table(
    "entries",
    METADATA,
    Column("entity_type", String(40), primary_key=True),
    Column("value_hash", String(64), primary_key=True),
    Column("ciphertext", LargeBinary, nullable=False),
    Column("surrogate", Text, nullable=False),
    Column("create_time", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("key_id", String(16), nullable=False, server_default=""),
    UniqueConstraint("entity_type", "surrogate", name="entries_surrogate"),
)
SECRETS = Table(
    "secrets",
    METADATA,
    Column("name", String(16), primary_key=True),
    Column("key_id", String(16), nullable=False),
    Column("ciphertext", LargeBinary, nullable=False),
)
PROCESSED = Table(
    "processed",
    METADATA,
    Column("document_id", String(64), primary_key=True),
    Column("sequence", BigInteger, primary_key=True),
    Column("outcome", Text, nullable=False),
)
AUDIT = Table(
    "audit",
    METADATA,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("caller", String(128), nullable=False),
    Column("entity_type", String(40), nullable=False),
    Column("surrogate", Text, nullable=False),
    Column("purpose", Text, nullable=False),
    Column("create_time", DateTime(timezone=True), nullable=False, server_default=func.now()),
)


class SqlLedger:
    """What became of every version of a document."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def find(self, document_id: str, sequence: int) -> Outcome | None:
        """What was decided before."""
        query = select(PROCESSED.c.outcome).where(
            PROCESSED.c.document_id == document_id, PROCESSED.c.sequence == sequence
        )
        with transaction(self._engine) as connection:
            kept = connection.execute(query).scalar()
        return None if kept is None else _load(kept)

    def record(self, outcome: Outcome) -> Outcome:
        """Keep the decision, or read the one that another replica kept first."""
        ingested = outcome.ingested
        row = {"document_id": ingested.document_id, "sequence": ingested.sequence, "outcome": _dump(outcome)}
        with transaction(self._engine) as connection:
            kept = connection.execute(
                insert(PROCESSED).values(row).on_conflict_do_nothing().returning(PROCESSED.c.outcome)
            ).scalar()
        return outcome if kept is not None else self.find(ingested.document_id, ingested.sequence) or outcome

    def texts_of(self, document_id: str) -> list[Ref]:
        """A document's texts in the corpus that no other document shares."""
        mine = select(PROCESSED.c.outcome).where(PROCESSED.c.document_id == document_id)
        found = []
        with transaction(self._engine) as connection:
            for outcome in map(_load, connection.scalars(mine).all()):
                if isinstance(outcome, Passed):
                    others = select(func.count()).where(
                        PROCESSED.c.document_id != document_id, PROCESSED.c.outcome.contains(outcome.text.uri)
                    )
                    if not connection.scalar(others):
                        found.append(outcome.text)
        return found

    def forget(self, document_id: str) -> int:
        """Drop what was decided about a document."""
        with transaction(self._engine) as connection:
            return connection.execute(delete(PROCESSED).where(PROCESSED.c.document_id == document_id)).rowcount


class SqlAudit:
    """Who asked for true values, and why."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def record(self, caller: str, entity_type: str, surrogate: str, purpose: str) -> None:
        """Keep one call."""
        row = {"caller": caller, "entity_type": entity_type[:40], "surrogate": surrogate, "purpose": purpose}
        with transaction(self._engine) as connection:
            connection.execute(insert(AUDIT).values(row))


def _dump(outcome: Outcome) -> str:
    return json.dumps({"type": type(outcome).__name__, **asdict(outcome)}, sort_keys=True)


def _load(text: str) -> Outcome:
    content: dict[str, Any] = json.loads(text)
    raw = content["ingested"]
    changes = {"labels": tuple(raw["labels"]), "text": Ref(**raw["text"]), "spans": _spans(raw)}
    ingested = Ingested(**{**raw, **changes})
    if content["type"] == "Unreadable":
        return Unreadable(ingested, content["hint"], content["time_ms"])
    return Passed(
        ingested,
        Ref(**content["text"]),
        content["char_count"],
        content["findings"],
        content["policy_digest"],
        content["time_ms"],
        content.get("language", ""),
        _spans(content),
    )


def _spans(content: dict[str, Any]) -> tuple[Span, ...]:
    """Spans; none of what was kept before there were any."""
    return tuple(Span(**span) for span in content.get("spans", ()))
