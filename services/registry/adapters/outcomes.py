"""What drafts were worth, in PostgreSQL."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from sqlalchemy import Connection, Engine, case, func, select

from services.registry.adapters import tables
from services.registry.outcome_domain import DeliverableText, DraftOutcome, FinalText
from tailor.codec import decode
from tailor.rows import Rows
from tailor.sql import transaction
from tailor.values import Selection

# The contract names this number.
MAX_ENTRIES = 100_000


class SqlOutcomes(Rows[DraftOutcome]):
    """Outcomes of drafts. Erasing a deliverable deletes what is stored about its draft."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection, tables.outcomes, DraftOutcome)
        self._connection = connection

    def save_final_text(self, final: FinalText) -> None:
        """Store or replace what became of a draft. Feedback never replaces the entry of a deliverable."""
        finals = Rows(self._connection, tables.final_texts, FinalText)
        old, new = finals.c, finals.new
        # A replay of the policy publishes a deliverable again, which is not made in another week for that.
        again = (old.document_id != "") & (old.document_id == new.document_id)
        create_time = case((again, old.create_time), else_=new.create_time)
        counts_more = (new.document_id != "") | (old.document_id == "")
        finals.upsert(final, where=counts_more, computed={"create_time": create_time})

    def find_unmeasured(self, draft_id: str) -> DeliverableText | None:
        """The draft's deliverable if its share is not known and it is still catalogued."""
        final, documents = tables.final_texts, tables.documents
        query = select(documents.c.payload).join(final, final.c.document_id == documents.c.document_id)
        message = self._connection.scalar(query.where(final.c.draft_id == draft_id, final.c.share.is_(None)))
        return None if message is None else decode(DeliverableText, message)


class OutcomeQueries:
    """What people read of them."""

    _engine: Engine

    def outcomes(self, specialist: str) -> tuple[Sequence[DraftOutcome], Sequence[FinalText]]:
        """The newest outcomes of a specialist, and the newest entries of what became of its drafts."""
        outcomes = Rows(self._engine, tables.outcomes, DraftOutcome, "create_time")
        finals = Rows(self._engine, tables.final_texts, FinalText, "create_time")
        return (
            outcomes.newest_first(MAX_ENTRIES, specialist=specialist),
            finals.newest_first(MAX_ENTRIES, specialist=specialist),
        )

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


def forget_outcomes(connection: Connection, document_id: str) -> int:
    """Delete what is stored about the drafts that an erased deliverable was made from; the number of entries."""
    outcomes, finals = SqlOutcomes(connection), Rows(connection, tables.final_texts, FinalText)
    drafts = select(finals.c.draft_id).where(finals.c.document_id == document_id)
    return outcomes.delete(outcomes.c.draft_id.in_(drafts)) + finals.delete(document_id=document_id)
