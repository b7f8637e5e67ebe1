"""Drafts that can be judged, and what experts decided about their prompts, in PostgreSQL."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, delete, func, select
from sqlalchemy.dialects.postgresql import insert

from services.registry import wire
from services.registry.adapters import tables
from services.registry.domain import Draft, FactKind, Judgement
from services.registry.rules.judging import ExpertDecision, StoredDraft
from tailor.api.events.v1 import drafts_pb2, models_pb2
from tailor.values import DatasetKind
from tailor.wire import to_datetime

DATASET_KINDS = {
    DatasetKind.SFT: models_pb2.DATASET_KIND_SFT,
    DatasetKind.PREFERENCE: models_pb2.DATASET_KIND_PREFERENCE,
}
# A decision can be taken back for minutes, in which few datasets are built.
NEWEST_DATASETS = 20


class SqlJudging:
    """Drafts that experts can judge, and what experts decided about their prompts."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def list_drafts(self, specialist: str, since: datetime, limit: int) -> Sequence[StoredDraft]:
        """The specialist's drafts whose texts are stored, newest first."""
        table = tables.stored_drafts
        query = (
            select(table)
            .where(table.c.specialist == specialist, table.c.create_time > since)
            .order_by(table.c.create_time.desc())
            .limit(limit)
        )
        return [
            StoredDraft(
                row.draft_id,
                row.prompt_digest,
                row.answer_digest,
                row.is_callers,
                row.create_time,
                bool(row.drawn_from),
            )
            for row in self._connection.execute(query)
        ]

    def list_decisions(self, specialist: str, since: datetime) -> Sequence[ExpertDecision]:
        table, judgements = tables.expert_decisions, tables.judgements
        joined = table.outerjoin(judgements, judgements.c.judgement_id == table.c.judgement_id)
        query = select(table, judgements.c.payload).select_from(joined)
        rows = self._connection.execute(query.where(table.c.specialist == specialist, table.c.create_time > since))
        return [_with_drafts(_to_decision(row), row.payload) for row in rows]

    def record(self, expert_id: str, specialist: str, prompts: Collection[str], judgement_id: str = "") -> None:
        """Record that an expert judged prompts, or skipped them if there is no judgement. Idempotent."""
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

    def find_last(self, expert_id: str, specialist: str) -> ExpertDecision | None:
        """The expert's newest decision that was not withdrawn."""
        table = tables.expert_decisions
        query = select(table).where(table.c.expert_id == expert_id, table.c.specialist == specialist)
        row = self._connection.execute(query.order_by(table.c.position.desc()).limit(1)).first()
        return None if row is None else _to_decision(row)

    def withdraw(self, decision: ExpertDecision) -> None:
        """Forget a decision, so that its prompts wait for the expert again."""
        table = tables.expert_decisions
        query = delete(table).where(table.c.expert_id == decision.expert_id, table.c.specialist == decision.specialist)
        # A judgement of several prompts has several rows.
        same = table.c.judgement_id == decision.judgement_id
        self._connection.execute(query.where(same if decision.judgement_id else table.c.position == decision.position))

    def has_dataset_since(self, specialist: str, time: datetime, kinds: Collection[DatasetKind]) -> bool:
        """True if a dataset of one of the kinds was built after this time."""
        table = tables.facts
        query = select(table.c.payload).where(table.c.kind == FactKind.DATASET.value, table.c.specialist == specialist)
        newest = self._connection.scalars(query.order_by(table.c.position.desc()).limit(NEWEST_DATASETS))
        datasets = map(models_pb2.DatasetBuilt.FromString, newest)
        wanted = {DATASET_KINDS[kind] for kind in kinds}
        return any(to_datetime(item.create_time) > time for item in datasets if item.kind in wanted)

    def list_own(
        self, expert_id: str, specialist: str, before: int | None, limit: int
    ) -> Sequence[tuple[int, Judgement]]:
        """Positions and judgements of an expert, newest first, each once."""
        decisions, judgements = tables.expert_decisions, tables.judgements
        position = func.max(decisions.c.position).label("position")
        experts_judgements = select(decisions.c.judgement_id, position).where(
            decisions.c.expert_id == expert_id, decisions.c.specialist == specialist, decisions.c.judgement_id != ""
        )
        grouped = experts_judgements.group_by(decisions.c.judgement_id).subquery()
        joined = grouped.join(judgements, judgements.c.judgement_id == grouped.c.judgement_id)
        query = select(grouped.c.position, judgements.c.payload).select_from(joined).where(~judgements.c.retracted)
        if before is not None:
            query = query.where(grouped.c.position < before)
        rows = self._connection.execute(query.order_by(grouped.c.position.desc()).limit(limit))
        return [(row.position, wire.to_judgement(drafts_pb2.JudgementRecorded.FromString(row.payload))) for row in rows]


def _to_decision(row: Any) -> ExpertDecision:
    return ExpertDecision(
        row.expert_id, row.specialist, row.prompt_digest, row.judgement_id, row.create_time, row.position
    )


def _with_drafts(decision: ExpertDecision, payload: bytes | None) -> ExpertDecision:
    if payload is None:
        return decision
    message = drafts_pb2.JudgementRecorded.FromString(payload)
    return replace(
        decision,
        ranking=tuple(message.ranking),
        equal=tuple(message.equal_drafts),
        places=tuple(message.places),
    )


def save_stored_draft(connection: Connection, draft: Draft) -> None:
    """Note a draft whose text is stored. Idempotent."""
    row = {
        "draft_id": draft.draft_id,
        "specialist": draft.specialist,
        "prompt_digest": draft.prompt_digest,
        "answer_digest": draft.answer_digest,
        "is_callers": bool(draft.key_id),
        "create_time": draft.create_time or datetime.now(UTC),
        "drawn_from": [*draft.drawn_from],
    }
    connection.execute(insert(tables.stored_drafts).values(row).on_conflict_do_nothing())


def forget_drawn_drafts(connection: Connection, document_id: str) -> int:
    """Take the drafts whose prompts were drawn from a document out of the queue; the number of drafts."""
    table = tables.stored_drafts
    return connection.execute(delete(table).where(table.c.drawn_from.contains([document_id]))).rowcount
