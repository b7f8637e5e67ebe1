"""The outcome of every version, and the audit log, in PostgreSQL.

A change of the tables needs a migration in `adapters/migrations/versions/`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    DateTime,
    Engine,
    Identity,
    Integer,
    MetaData,
    Row,
    String,
    Table,
    Text,
    bindparam,
    func,
    literal_column,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from services.anonymization.domain import DocumentOutcome, FindingCount, Passed
from tailor.rows import Rows
from tailor.sql import transaction
from tailor.storage.ref import Ref

METADATA = MetaData()

PROCESSED = Table(
    "processed",
    METADATA,
    Column("document_id", String(64), primary_key=True),
    Column("sequence", BigInteger, primary_key=True),
    Column("outcome", JSONB, nullable=False),
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
TEXT_URI: ColumnElement[str] = literal_column("(outcome #>> '{text,uri}')", String)

# Both read the newest version of every document that passed. Only such an outcome has a text.
COUNT_FINDINGS = text("""
WITH newest AS (
  SELECT DISTINCT ON (document_id) outcome FROM processed WHERE outcome ? 'text' ORDER BY document_id, sequence DESC
)
SELECT outcome -> 'ingested' -> 'labels' AS labels, found.key AS entity_type,
  count(*) AS documents, sum(found.value::bigint)::bigint AS values
FROM newest, jsonb_each_text(outcome -> 'findings') AS found GROUP BY 1, 2
""")
COUNT_OUTDATED = text("""
WITH newest AS (
  SELECT DISTINCT ON (document_id) outcome FROM processed WHERE outcome ? 'text' ORDER BY document_id, sequence DESC
)
SELECT count(*) FROM newest
WHERE outcome ->> 'policy_digest' <> :policy OR coalesce(outcome ->> 'detectors_digest', '') <> :detectors
""")


@dataclass(frozen=True)
class Version:
    """A version of a document and what became of it."""

    document_id: str
    sequence: int
    outcome: DocumentOutcome


class SqlLedger:
    """The outcome of every version of every document."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._versions = Rows(engine, PROCESSED, Version)
        self._starts = Rows(engine, STARTS, Row)

    def find(self, document_id: str, sequence: int) -> DocumentOutcome | None:
        """The recorded outcome, or None."""
        version = self._versions.find(document_id=document_id, sequence=sequence)
        return None if version is None else version.outcome

    def start(self, document_id: str, sequence: int) -> int:
        """Note that work on a version begins, and return how often it began without an outcome, this time included."""
        with transaction(self._engine) as connection:
            starts = Rows(connection, STARTS, Row)
            again = {"starts": starts.c.starts + 1}
            starts.upsert(document_id=document_id, sequence=sequence, starts=1, computed=again)
            return int(starts.value(starts.c.starts, document_id=document_id, sequence=sequence))

    def forget_starts(self, document_id: str, sequence: int) -> None:
        """Forget that work on a version began. Idempotent."""
        self._starts.delete(document_id=document_id, sequence=sequence)

    def record(self, outcome: DocumentOutcome) -> DocumentOutcome:
        """Record an outcome; if another replica was first, return the outcome it recorded."""
        document_id, sequence = outcome.ingested.document_id, outcome.ingested.sequence
        with transaction(self._engine) as connection:
            is_new = Rows(connection, PROCESSED, Version).add(Version(document_id, sequence, outcome))
            Rows(connection, STARTS, Row).delete(document_id=document_id, sequence=sequence)
        return outcome if is_new else self.find(document_id, sequence) or outcome

    def newest(self, document_ids: Sequence[str]) -> Mapping[str, Passed]:
        """The newest versions that passed, by document."""
        versions = self._versions.all(document_id=[*document_ids], order=self._versions.c.sequence)
        passed = {version.document_id: version.outcome for version in versions if isinstance(version.outcome, Passed)}
        return dict(sorted(passed.items()))

    def count_findings(self) -> Sequence[FindingCount]:
        """What was found in the newest versions, by labels and type. Reads the whole ledger."""
        counts = Rows(self._engine, PROCESSED, FindingCount)
        with transaction(self._engine) as connection:
            return [counts.read(row) for row in connection.execute(COUNT_FINDINGS)]

    def count_outdated(self, policy_digest: str, detectors_digest: str) -> int:
        """Documents whose newest version passed under another policy or other detectors. Reads the whole ledger."""
        parameters = {"policy": policy_digest, "detectors": detectors_digest}
        with transaction(self._engine) as connection:
            return connection.scalar(COUNT_OUTDATED, parameters) or 0

    def texts_of(self, document_id: str) -> list[Ref]:
        """A document's corpus texts that no other document shares."""
        return self._own_texts(PROCESSED.c.document_id == document_id)

    def texts_before(self, document_id: str, sequence: int) -> list[Ref]:
        """The corpus texts of a document's versions before `sequence` that neither another document nor a later version has."""
        return self._own_texts((PROCESSED.c.document_id == document_id) & (PROCESSED.c.sequence < sequence))

    def _own_texts(self, is_chosen: ColumnElement[bool]) -> list[Ref]:
        """The texts of versions that no other version has."""
        outcomes = [version.outcome for version in self._versions.all(is_chosen)]
        refs = {outcome.text: None for outcome in outcomes if isinstance(outcome, Passed)}
        return [ref for ref in refs if not self._versions.has(~is_chosen, bindparam(None, ref.uri) == TEXT_URI)]

    def forget(self, document_id: str, before: int | None = None) -> int:
        """Remove a document's outcomes, or those of the versions before a sequence, and return the number of versions."""
        if before is not None:
            return self._versions.delete(self._versions.c.sequence < before, document_id=document_id)
        self._starts.delete(document_id=document_id)
        return self._versions.delete(document_id=document_id)


class SqlAuditLog:
    """Who asked for true values and for people."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def record(self, caller: str, entity_type: str, surrogate: str, purpose: str) -> None:
        """Record one call; before the answer is given."""
        call = {"caller": caller, "surrogate": surrogate, "purpose": purpose}
        Rows(self._engine, AUDIT, Row).insert(entity_type=entity_type[:40], **call)

    def has(self, caller: str, entity_type: str, surrogate: str, purpose: str, seconds: float) -> bool:
        """True if such a call was recorded within the last seconds."""
        is_recent = AUDIT.c.create_time > func.now() - timedelta(seconds=seconds)
        call = {"caller": caller, "surrogate": surrogate, "purpose": purpose}
        return Rows(self._engine, AUDIT, Row).has(is_recent, entity_type=entity_type, **call)
