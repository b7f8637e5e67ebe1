"""What drafts were worth, in PostgreSQL."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, Table, case, delete, func, select
from sqlalchemy.dialects.postgresql import insert

from services.registry.adapters import tables
from services.registry.outcome_domain import DeliverableText, DraftOutcome, FinalText
from tailor.api.events.v1 import documents_pb2
from tailor.codec import decode
from tailor.sql import transaction
from tailor.values import Selection

# The contract names this number.
MAX_ENTRIES = 100_000


class SqlOutcomes:
    """Outcomes of drafts. Erasing a deliverable deletes what is stored about its draft."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def save(self, outcome: DraftOutcome) -> None:
        """Store an outcome, or replace the one with its id."""
        row = asdict(outcome)
        statement = insert(tables.outcomes).values(row)
        changed = {name: statement.excluded[name] for name in row if name != "outcome_id"}
        self._connection.execute(statement.on_conflict_do_update(index_elements=["outcome_id"], set_=changed))

    def save_final_text(self, final: FinalText) -> None:
        """Store or replace what became of a draft. Feedback never replaces the entry of a deliverable."""
        table, row = tables.final_texts, asdict(final)
        statement = insert(table).values(row)
        changed: dict[str, ColumnElement[Any]] = {name: statement.excluded[name] for name in row if name != "draft_id"}
        # A replay of the policy publishes a deliverable again, which is not made in another week for that.
        again = (table.c.document_id != "") & (table.c.document_id == statement.excluded.document_id)
        changed["create_time"] = case((again, table.c.create_time), else_=statement.excluded.create_time)
        counts_more = (statement.excluded.document_id != "") | (table.c.document_id == "")
        self._connection.execute(
            statement.on_conflict_do_update(index_elements=["draft_id"], set_=changed, where=counts_more)
        )

    def find_unmeasured(self, draft_id: str) -> DeliverableText | None:
        """The draft's deliverable if its share is not known and it is still catalogued."""
        final, documents = tables.final_texts, tables.documents
        query = select(documents.c.payload).join(final, final.c.document_id == documents.c.document_id)
        payload = self._connection.scalar(query.where(final.c.draft_id == draft_id, final.c.share.is_(None)))
        return (
            None if payload is None else decode(DeliverableText, documents_pb2.DocumentAnonymized.FromString(payload))
        )


class OutcomeQueries:
    """What people read of them."""

    _engine: Engine

    def outcomes(self, specialist: str) -> tuple[Sequence[DraftOutcome], Sequence[FinalText]]:
        """The newest outcomes of a specialist, and the newest entries of what became of its drafts."""
        with transaction(self._engine) as connection:
            outcomes = _newest(connection, tables.outcomes, specialist)
            finals = _newest(connection, tables.final_texts, specialist)
            return [DraftOutcome(**row) for row in outcomes], [FinalText(**row) for row in finals]

    def documents_by_week(self, selection: Selection, since: datetime) -> Mapping[datetime, int]:
        """Documents of a selection that passed the barrier, by the Monday of their first week in UTC. Erased ones do not count."""
        table = tables.submissions
        admitted = [table.c[name].in_(values) for name, values in selection.admitted.items()]
        first = (
            select(func.min(table.c.create_time).label("moment"))
            .where(table.c.state == "anonymized", *admitted)
            .group_by(table.c.document_id)
            .subquery()
        )
        week = func.date_trunc("week", func.timezone("UTC", first.c.moment)).label("week")
        query = select(week, func.count().label("documents")).where(first.c.moment >= since).group_by(week)
        with transaction(self._engine) as connection:
            return {row.week.replace(tzinfo=UTC): row.documents for row in connection.execute(query)}


def _newest(connection: Connection, table: Table, specialist: str) -> Sequence[Mapping[str, Any]]:
    query = select(table).where(table.c.specialist == specialist).order_by(table.c.create_time.desc())
    return [dict(row) for row in connection.execute(query.limit(MAX_ENTRIES)).mappings()]


def forget_outcomes(connection: Connection, document_id: str) -> int:
    """Delete what is stored about the drafts that an erased deliverable was made from; the number of entries."""
    outcomes, final_texts = tables.outcomes, tables.final_texts
    drafts = select(final_texts.c.draft_id).where(final_texts.c.document_id == document_id)
    reported = connection.execute(delete(outcomes).where(outcomes.c.draft_id.in_(drafts))).rowcount
    return reported + connection.execute(delete(final_texts).where(final_texts.c.document_id == document_id)).rowcount
