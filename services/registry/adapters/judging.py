"""Drafts that can be judged, and what experts decided about their prompts, in PostgreSQL."""

from collections.abc import Collection, Sequence
from datetime import UTC, datetime

from sqlalchemy import Connection, select
from sqlalchemy.dialects.postgresql import insert

from services.registry.adapters import tables
from services.registry.domain import Draft
from services.registry.ports import JudgingStore
from services.registry.rules.judging import ExpertDecision, StoredDraft


class SqlJudging(JudgingStore):
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def list_drafts(self, specialist: str, since: datetime, limit: int) -> Sequence[StoredDraft]:
        table = tables.stored_drafts
        query = (
            select(table)
            .where(table.c.specialist == specialist, table.c.create_time > since)
            .order_by(table.c.create_time.desc())
            .limit(limit)
        )
        return [
            StoredDraft(row.draft_id, row.prompt_digest, row.answer_digest, row.is_callers, row.create_time)
            for row in self._connection.execute(query)
        ]

    def list_decisions(self, specialist: str, since: datetime) -> Sequence[ExpertDecision]:
        table = tables.expert_decisions
        query = select(table).where(table.c.specialist == specialist, table.c.create_time > since)
        return [
            ExpertDecision(
                row.expert_id, row.specialist, row.prompt_digest, row.judgement_id, row.create_time, row.position
            )
            for row in self._connection.execute(query)
        ]

    def record(self, expert_id: str, specialist: str, prompts: Collection[str], judgement_id: str = "") -> None:
        now = datetime.now(UTC)
        rows = [
            {
                "expert_id": expert_id,
                "specialist": specialist,
                "prompt_digest": prompt,
                "judgement_id": judgement_id,
                "create_time": now,
            }
            for prompt in sorted(set(prompts))
        ]
        if rows:
            self._connection.execute(insert(tables.expert_decisions).values(rows).on_conflict_do_nothing())


def save_stored_draft(connection: Connection, draft: Draft) -> None:
    """Note a draft whose text is stored. Idempotent."""
    row = {
        "draft_id": draft.draft_id,
        "specialist": draft.specialist,
        "prompt_digest": draft.prompt_digest,
        "answer_digest": draft.answer_digest,
        "is_callers": bool(draft.key_id),
        "create_time": draft.create_time or datetime.now(UTC),
    }
    connection.execute(insert(tables.stored_drafts).values(row).on_conflict_do_nothing())
