"""Callers' feedback in PostgreSQL."""

from datetime import UTC, datetime

from sqlalchemy import ColumnElement, Connection, Engine, func, select

from services.registry.adapters import tables
from services.registry.domain import Feedback, FeedbackTotals, FeedbackVerdict
from services.registry.rules.feedback import TEXT_LIFETIME, drop_expired_text
from tailor.api.registry.v1.feedback_pb2 import ListFeedbackRequest
from tailor.listing import Listing, ListPage
from tailor.rows import Rows
from tailor.sql import transaction


class SqlFeedback(Rows[Feedback]):
    """Callers' feedback on drafts."""

    def __init__(self, database: Connection | Engine) -> None:
        super().__init__(database, tables.feedback, Feedback)

    def save(self, feedback: Feedback) -> None:
        """Store feedback, or replace the one with its id. Deletes edited texts that have expired."""
        self.upsert(feedback)
        # Each new one deletes the edited texts that have expired, so that none outlives a text of a draft for long.
        self.update(
            {"edited_text": ""}, self.c.create_time < datetime.now(UTC) - TEXT_LIFETIME, self.c.edited_text != ""
        )


class FeedbackQueries:
    """What people list of it."""

    _engine: Engine

    def list_feedback(self, request: ListFeedbackRequest) -> tuple[ListPage[Feedback], FeedbackTotals]:
        """Feedback on a specialist's drafts, newest first, without expired texts, and the totals. An empty adapter means all."""
        now, feedback = datetime.now(UTC), SqlFeedback(self._engine)
        listing = Listing(feedback, request, feedback.c.position, descending=True)
        query = feedback.select(*_selected(request.specialist, request.adapter_digest))
        page = listing.page(query, read=lambda row: drop_expired_text(feedback.read(row), now))
        return page, count_feedback(self._engine, request.specialist, request.adapter_digest)


def count_feedback(engine: Engine, specialist: str, adapter: str) -> FeedbackTotals:
    """The totals of a specialist, or of one of its adapters."""
    table = tables.feedback
    rated = table.c.stars > 0
    query = select(
        *(func.count().filter(table.c.verdict == verdict.value).label(verdict.value) for verdict in FeedbackVerdict),
        func.count().filter(rated).label("rated"),
        func.coalesce(func.avg(table.c.stars).filter(rated), 0).label("mean_stars"),
    ).where(*_selected(specialist, adapter))
    with transaction(engine) as connection:
        row = connection.execute(query).one()
    return FeedbackTotals(row.accepted, row.edited, row.rejected, row.rated, float(row.mean_stars))


def _selected(specialist: str, adapter: str) -> list[ColumnElement[bool]]:
    table = tables.feedback
    chosen = [table.c.specialist == specialist]
    return [*chosen, table.c.adapter_digest == adapter] if adapter else chosen
