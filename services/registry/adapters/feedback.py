"""Callers' feedback in PostgreSQL."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime

from sqlalchemy import ColumnElement, Connection, Engine, Row, func, select, update
from sqlalchemy.dialects.postgresql import insert

from services.registry.adapters import tables
from services.registry.domain import Feedback, FeedbackTotals, FeedbackVerdict
from services.registry.rules.feedback import TEXT_LIFETIME, drop_expired_text
from tailor.sql import transaction


class SqlFeedback:
    """Callers' feedback on drafts."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def save(self, feedback: Feedback) -> None:
        """Store feedback, or replace the one with its id. Deletes edited texts that have expired."""
        table = tables.feedback
        row = asdict(feedback) | {"verdict": feedback.verdict.value if feedback.verdict else ""}
        statement = insert(table).values(row)
        changed = {name: statement.excluded[name] for name in row if name != "feedback_id"}
        self._connection.execute(statement.on_conflict_do_update(index_elements=["feedback_id"], set_=changed))
        # Each new one deletes the edited texts that have expired, so that none outlives a text of a draft for long.
        expired = (table.c.create_time < datetime.now(UTC) - TEXT_LIFETIME) & (table.c.edited_text != "")
        self._connection.execute(update(table).where(expired).values(edited_text=""))


class FeedbackQueries:
    """What people list of it."""

    _engine: Engine

    def feedback(
        self, specialist: str, adapter: str, before: int | None, limit: int
    ) -> tuple[Sequence[tuple[int, Feedback]], FeedbackTotals]:
        """Positions and feedback on a specialist's drafts, newest first, and the totals. An empty adapter means all."""
        with transaction(self._engine) as connection:
            return (
                list_feedback(connection, specialist, adapter, before, limit),
                count_feedback(connection, specialist, adapter),
            )


def list_feedback(
    connection: Connection, specialist: str, adapter: str, before: int | None, limit: int
) -> Sequence[tuple[int, Feedback]]:
    """Positions and feedback, newest first, without expired texts. An empty adapter means all."""
    table = tables.feedback
    query = select(table).where(*_selected(specialist, adapter))
    if before is not None:
        query = query.where(table.c.position < before)
    now = datetime.now(UTC)
    rows = connection.execute(query.order_by(table.c.position.desc()).limit(limit))
    return [(row.position, drop_expired_text(to_feedback(row), now)) for row in rows]


def count_feedback(connection: Connection, specialist: str, adapter: str) -> FeedbackTotals:
    """The totals of a specialist, or of one of its adapters."""
    table = tables.feedback
    rated = table.c.stars > 0
    query = select(
        *(func.count().filter(table.c.verdict == verdict.value).label(verdict.value) for verdict in FeedbackVerdict),
        func.count().filter(rated).label("rated"),
        func.coalesce(func.avg(table.c.stars).filter(rated), 0).label("mean_stars"),
    ).where(*_selected(specialist, adapter))
    row = connection.execute(query).one()
    return FeedbackTotals(row.accepted, row.edited, row.rejected, row.rated, float(row.mean_stars))


def _selected(specialist: str, adapter: str) -> list[ColumnElement[bool]]:
    table = tables.feedback
    chosen = [table.c.specialist == specialist]
    return [*chosen, table.c.adapter_digest == adapter] if adapter else chosen


def to_feedback(row: Row) -> Feedback:  # type: ignore[type-arg]
    """Feedback from its row."""
    values = row._asdict() | {"verdict": FeedbackVerdict(row.verdict)}
    del values["position"]
    return Feedback(**values)
