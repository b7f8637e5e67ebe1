"""The outcome of every version, and the audit log, in PostgreSQL.

A change of the tables needs a migration in `migrations/versions/`.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple
from datetime import timedelta
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    DateTime,
    Delete,
    Engine,
    Identity,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    bindparam,
    delete,
    func,
    literal_column,
    select,
    text,
)
from sqlalchemy.dialects.postgresql import insert

from services.anonymization.domain import DocumentOutcome, FindingCount, Ingested, Passed, Unreadable
from services.anonymization.ports import AuditLog, Ledger
from tailor.sql import transaction
from tailor.storage.ref import Ref
from tailor.values import Labels, Span
from tailor.wire import SPAN_KINDS, from_span

METADATA = MetaData()

PROCESSED = Table(
    "processed",
    METADATA,
    Column("document_id", String(64), primary_key=True),
    Column("sequence", BigInteger, primary_key=True),
    Column("outcome", Text, nullable=False),
)
STARTS = Table(
    "starts",
    METADATA,
    Column("document_id", String(64), primary_key=True),
    Column("sequence", BigInteger, primary_key=True),
    Column("starts", Integer, nullable=False),
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


# The corpus text of a version that passed; has an index.
TEXT_URI: ColumnElement[str] = literal_column("(outcome::jsonb #>> '{text,uri}')", String)

# Both read the newest version of every document that passed.
COUNT_FINDINGS = text("""
WITH newest AS (
  SELECT DISTINCT ON (document_id) outcome::jsonb AS outcome FROM processed
  WHERE outcome::jsonb ->> 'type' = 'Passed' ORDER BY document_id, sequence DESC
)
SELECT outcome -> 'ingested' -> 'labels' AS labels, found.key AS entity_type,
  count(*) AS documents, sum(found.value::bigint)::bigint AS found
FROM newest, jsonb_each_text(outcome -> 'findings') AS found GROUP BY 1, 2
""")
COUNT_OUTDATED = text("""
WITH newest AS (
  SELECT DISTINCT ON (document_id) outcome::jsonb AS outcome FROM processed
  WHERE outcome::jsonb ->> 'type' = 'Passed' ORDER BY document_id, sequence DESC
)
SELECT count(*) FROM newest
WHERE outcome ->> 'policy_digest' <> :policy OR coalesce(outcome ->> 'detectors_digest', '') <> :detectors
""")


def _delete_starts(document_id: str, sequence: int) -> Delete:
    return delete(STARTS).where(STARTS.c.document_id == document_id, STARTS.c.sequence == sequence)


class SqlLedger(Ledger):
    """The outcomes as JSON, one row per version."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def find(self, document_id: str, sequence: int) -> DocumentOutcome | None:
        query = select(PROCESSED.c.outcome).where(
            PROCESSED.c.document_id == document_id, PROCESSED.c.sequence == sequence
        )
        with transaction(self._engine) as connection:
            outcome = connection.execute(query).scalar()
        return None if outcome is None else _load(outcome)

    def start(self, document_id: str, sequence: int) -> int:
        row = {"document_id": document_id, "sequence": sequence, "starts": 1}
        counted = (
            insert(STARTS)
            .values(row)
            .on_conflict_do_update(
                index_elements=[STARTS.c.document_id, STARTS.c.sequence], set_={"starts": STARTS.c.starts + 1}
            )
        )
        with transaction(self._engine) as connection:
            return int(connection.execute(counted.returning(STARTS.c.starts)).scalar_one())

    def forget_starts(self, document_id: str, sequence: int) -> None:
        with transaction(self._engine) as connection:
            connection.execute(_delete_starts(document_id, sequence))

    def record(self, outcome: DocumentOutcome) -> DocumentOutcome:
        ingested = outcome.ingested
        row = {"document_id": ingested.document_id, "sequence": ingested.sequence, "outcome": _dump(outcome)}
        with transaction(self._engine) as connection:
            recorded = connection.execute(
                insert(PROCESSED).values(row).on_conflict_do_nothing().returning(PROCESSED.c.outcome)
            ).scalar()
            connection.execute(_delete_starts(ingested.document_id, ingested.sequence))
        return outcome if recorded is not None else self.find(ingested.document_id, ingested.sequence) or outcome

    def newest(self, document_ids: Sequence[str]) -> Mapping[str, Passed]:
        query = (
            select(PROCESSED.c.outcome)
            .where(PROCESSED.c.document_id.in_(document_ids))
            .order_by(PROCESSED.c.document_id, PROCESSED.c.sequence)
        )
        with transaction(self._engine) as connection:
            outcomes = [_load(outcome) for outcome in connection.scalars(query)]
        return {outcome.ingested.document_id: outcome for outcome in outcomes if isinstance(outcome, Passed)}

    def count_findings(self) -> Sequence[FindingCount]:
        with transaction(self._engine) as connection:
            rows = connection.execute(COUNT_FINDINGS).all()
        return [FindingCount(Labels(*row.labels), row.entity_type, row.documents, row.found) for row in rows]

    def count_outdated(self, policy_digest: str, detectors_digest: str) -> int:
        parameters = {"policy": policy_digest, "detectors": detectors_digest}
        with transaction(self._engine) as connection:
            return connection.scalar(COUNT_OUTDATED, parameters) or 0

    def texts_of(self, document_id: str) -> list[Ref]:
        outcomes = select(PROCESSED.c.outcome).where(PROCESSED.c.document_id == document_id)
        texts = []
        with transaction(self._engine) as connection:
            for outcome in map(_load, connection.scalars(outcomes).all()):
                if isinstance(outcome, Passed):
                    others = select(func.count()).where(
                        PROCESSED.c.document_id != document_id, PROCESSED.c.outcome.contains(outcome.text.uri)
                    )
                    if not connection.scalar(others):
                        texts.append(outcome.text)
        return texts

    def texts_before(self, document_id: str, sequence: int) -> list[Ref]:
        is_own = PROCESSED.c.document_id == document_id
        is_old = is_own & (PROCESSED.c.sequence < sequence)
        with transaction(self._engine) as connection:
            old = map(_load, connection.scalars(select(PROCESSED.c.outcome).where(is_old)).all())
            refs = {outcome.text for outcome in old if isinstance(outcome, Passed)}
            others = select(func.count()).select_from(PROCESSED).where(~is_old, bindparam("uri") == TEXT_URI)
            return [ref for ref in refs if not connection.scalar(others, {"uri": ref.uri})]

    def forget(self, document_id: str, before: int | None = None) -> int:
        query = delete(PROCESSED).where(PROCESSED.c.document_id == document_id)
        if before is not None:
            query = query.where(PROCESSED.c.sequence < before)
        with transaction(self._engine) as connection:
            if before is None:
                connection.execute(delete(STARTS).where(STARTS.c.document_id == document_id))
            return connection.execute(query).rowcount


class SqlAuditLog(AuditLog):
    """One row per call."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def record(self, caller: str, entity_type: str, surrogate: str, purpose: str) -> None:
        row = {"caller": caller, "entity_type": entity_type[:40], "surrogate": surrogate, "purpose": purpose}
        with transaction(self._engine) as connection:
            connection.execute(insert(AUDIT).values(row))

    def has(self, caller: str, entity_type: str, surrogate: str, purpose: str, seconds: float) -> bool:
        query = select(AUDIT.c.id).where(
            AUDIT.c.caller == caller,
            AUDIT.c.entity_type == entity_type,
            AUDIT.c.surrogate == surrogate,
            AUDIT.c.purpose == purpose,
            AUDIT.c.create_time > func.now() - timedelta(seconds=seconds),
        )
        with transaction(self._engine) as connection:
            return connection.scalar(query.limit(1)) is not None


# In a row, labels are a list and the kind of a span is its number in common.proto.
def _dump(outcome: DocumentOutcome) -> str:
    content = {"type": type(outcome).__name__, **asdict(outcome)}
    ingested = outcome.ingested
    content["ingested"] |= {"labels": astuple(ingested.labels), "spans": _dump_spans(ingested.spans)}
    if isinstance(outcome, Passed):
        content["spans"] = _dump_spans(outcome.spans)
    return json.dumps(content, sort_keys=True)


def _load(text: str) -> DocumentOutcome:
    content: dict[str, Any] = json.loads(text)
    row = content["ingested"]
    ingested = Ingested(
        **{**row, "labels": Labels(*row["labels"]), "text": Ref(**row["text"]), "spans": _load_spans(row)}
    )
    if content["type"] == "Unreadable":
        return Unreadable(ingested, content["hint"], content["time_ms"], content["reason"])
    return Passed(
        ingested,
        Ref(**content["text"]),
        content["char_count"],
        content["findings"],
        content["policy_digest"],
        content["time_ms"],
        content["language"],
        _load_spans(content),
        content["detectors_digest"],
        tuple(content["rules_only_languages"]),
    )


def _dump_spans(spans: tuple[Span, ...]) -> list[dict[str, Any]]:
    return [asdict(span) | {"kind": from_span(span).kind} for span in spans]


def _load_spans(content: dict[str, Any]) -> tuple[Span, ...]:
    rows = content["spans"]
    return tuple(Span(**{**row, "kind": SPAN_KINDS[row["kind"]]}) for row in rows if row["kind"] in SPAN_KINDS)
