"""Drafts in PostgreSQL."""

from datetime import timedelta

from sqlalchemy import Engine, and_, func, literal, or_, select, union_all

from services.synthetic.adapters import tables
from services.synthetic.adapters.conditions import selected
from services.synthetic.domain import KeptDraft, Kind, RankedEdit, Specialist
from tailor.rows import Rows
from tailor.sql import transaction


class SqlDrafts:
    """Drafts whose texts are stored, and those that experts edited. Thread-safe."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.drafts = Rows(engine, tables.drafts, KeptDraft)

    def keep_draft(self, draft: KeptDraft) -> None:
        """Keep a draft. A saved draft stays saved, with its text."""
        self.drafts.upsert(draft, where=~self.drafts.c.saved)

    def is_wanted(self, draft_id: str) -> bool:
        """True if a judgement is about the draft, or a deliverable was made from it."""
        judgements = tables.judgements.c
        judged = select(literal(1)).where(
            or_(judgements.ranking.contains([draft_id]), judgements.equal_drafts.contains([draft_id]))
        )
        finished = select(literal(1)).where(tables.documents.c.draft_id == draft_id)
        with transaction(self._engine) as connection:
            return connection.scalar(union_all(judged, finished).limit(1)) is not None

    def ranked_edits(self, specialist: Specialist) -> list[RankedEdit]:
        """The specialist's edited drafts that a judgement ranks first, before what was edited, by id.

        Those whose draft became a selected deliverable are left out.
        """
        table, judgements, documents = tables.drafts, tables.judgements, tables.documents
        best, second = judgements.c.ranking[0].astext, judgements.c.ranking[1].astext
        is_ranked = and_(best == table.c.draft_id, second == table.c.edit_of)
        joined = table.join(judgements, and_(is_ranked, judgements.c.specialist == table.c.specialist))
        is_finished = (
            select(literal(1))
            .where(
                documents.c.draft_id == table.c.edit_of,
                documents.c.kind == Kind.DELIVERABLE.value,
                selected(specialist.selection),
            )
            .exists()
        )
        query = select(table, func.min(judgements.c.judgement_id).label("judgement_id")).select_from(joined)
        query = query.where(table.c.specialist == specialist.name, table.c.saved, table.c.edit_of != "", ~is_finished)
        with transaction(self._engine) as connection:
            rows = connection.execute(query.group_by(table.c.draft_id).order_by(table.c.draft_id))
            return [RankedEdit(self.drafts.read(row), row.judgement_id) for row in rows]

    def forget_drafts(self, days: int) -> None:
        """Drop drafts older than `days` that nobody judged or finished."""
        old = self.drafts.c.kept_at < func.clock_timestamp() - timedelta(days=days)
        self.drafts.delete(old, ~self.drafts.c.saved)
