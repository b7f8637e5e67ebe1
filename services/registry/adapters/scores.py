"""Scores of documents in the closed-book set, in PostgreSQL."""

from collections.abc import Sequence

from sqlalchemy import ARRAY, BigInteger, Connection, Integer, String, cast, func, literal, select
from sqlalchemy.dialects.postgresql import insert

from services.registry.adapters import tables
from services.registry.adapters.erasures import LOCK
from services.registry.domain import ScoredAdapter
from tailor.api.registry.v1 import audit_pb2
from tailor.document_scores import DocumentScore
from tailor.sql import acquire_shared_lock

COUNTS = ("asked", "learned", "missed", "contradicted")


class SqlDocumentScores:
    """The newest score of each document of a specialist in the closed-book set."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def save(self, adapter: ScoredAdapter, scores: Sequence[DocumentScore]) -> None:
        """Store scores, except those of erased documents and those older than the stored ones. Idempotent."""
        # An erasure waits until these are stored, and then deletes them.
        acquire_shared_lock(self._connection, LOCK)
        table, erased = tables.document_scores, tables.erased_documents
        # One array per column, because a statement has at most 65,535 parameters.
        ids = func.unnest(cast([score.document_id for score in scores], ARRAY(String)))
        counts = [func.unnest(cast([getattr(score, name) for score in scores], ARRAY(Integer))) for name in COUNTS]
        labelled = [column.label(name) for column, name in zip(counts, COUNTS, strict=True)]
        new = select(ids.label("document_id"), *labelled).subquery()
        is_erased = select(erased.c.document_id).where(
            erased.c.document_id == new.c.document_id, ~erased.c.lifted, ~erased.c.superseded
        )
        rows = select(
            literal(adapter.specialist),
            new.c.document_id,
            *(new.c[name] for name in COUNTS),
            literal(adapter.digest),
            literal(adapter.evaluate_time),
        ).where(~is_erased.exists())
        statement = insert(table).from_select([column.name for column in table.c], rows)
        changed = {column.name: statement.excluded[column.name] for column in table.c if not column.primary_key}
        is_newer = statement.excluded.evaluate_time >= table.c.evaluate_time
        key = ["specialist", "document_id"]
        self._connection.execute(statement.on_conflict_do_update(index_elements=key, set_=changed, where=is_newer))


def sum_scores(connection: Connection, specialist: str) -> audit_pb2.AuditKnowledge:
    """The sums over all documents of a specialist."""
    table = tables.document_scores
    sums = (cast(func.coalesce(func.sum(table.c[name]), 0), BigInteger).label(name) for name in COUNTS)
    query = select(func.count().label("documents"), *sums).where(table.c.specialist == specialist)
    return audit_pb2.AuditKnowledge(**connection.execute(query).one()._mapping)
