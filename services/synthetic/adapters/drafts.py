"""Drafts in PostgreSQL."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import Engine, and_, delete, func, literal, or_, select, union_all
from sqlalchemy.dialects.postgresql import insert

from services.synthetic.adapters import tables
from services.synthetic.adapters.conditions import selected
from services.synthetic.domain import KeptDraft, Kind, RankedEdit, Specialist
from services.synthetic.ports import EditedDrafts, KeptDrafts
from tailor.sql import transaction
from tailor.storage.ref import Ref


class SqlDrafts(KeptDrafts, EditedDrafts):
    """Thread-safe."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def keep_draft(self, draft: KeptDraft) -> None:
        table = tables.drafts
        row = {
            "draft_id": draft.draft_id,
            "specialist": draft.specialist,
            "prompt_digest": draft.prompt_digest,
            "adapter_digest": draft.adapter_digest,
            "text_uri": draft.text.uri,
            "text_sha256": draft.text.sha256,
            "text_size_bytes": draft.text.size_bytes,
            "saved": draft.saved,
            "edit_of": draft.edit_of,
            "drawn_from": [*draft.drawn_from],
        }
        statement = insert(table).values(row)
        changed = {name: statement.excluded[name] for name in row if name != "draft_id"}
        statement = statement.on_conflict_do_update(index_elements=["draft_id"], set_=changed, where=~table.c.saved)
        with transaction(self._engine) as connection:
            connection.execute(statement)

    def kept_drafts(self, draft_ids: Sequence[str]) -> list[KeptDraft]:
        table = tables.drafts
        with transaction(self._engine) as connection:
            return [to_draft(row) for row in connection.execute(select(table).where(table.c.draft_id.in_(draft_ids)))]

    def is_wanted(self, draft_id: str) -> bool:
        judgements = tables.judgements.c
        judged = select(literal(1)).where(
            or_(judgements.ranking.contains([draft_id]), judgements.equal_drafts.contains([draft_id]))
        )
        finished = select(literal(1)).where(tables.documents.c.draft_id == draft_id)
        with transaction(self._engine) as connection:
            return connection.scalar(union_all(judged, finished).limit(1)) is not None

    def ranked_edits(self, specialist: Specialist) -> list[RankedEdit]:
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
            return [RankedEdit(to_draft(row), row.judgement_id) for row in rows]

    def forget_drafts(self, days: int) -> None:
        table = tables.drafts
        old = table.c.kept_at < func.clock_timestamp() - timedelta(days=days)
        with transaction(self._engine) as connection:
            connection.execute(delete(table).where(old, ~table.c.saved))


def to_draft(row: Any) -> KeptDraft:
    text = Ref(row.text_uri, row.text_sha256, row.text_size_bytes)
    return KeptDraft(
        row.draft_id,
        row.specialist,
        row.prompt_digest,
        row.adapter_digest,
        text,
        row.saved,
        row.edit_of,
        tuple(row.drawn_from),
    )
