"""Experts' marks of the drafts that callers got while a canary ran, from PostgreSQL."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta

from sqlalchemy import Connection, select
from sqlalchemy.dialects.postgresql import distinct_on

from services.registry import wire
from services.registry.adapters import tables
from services.registry.domain import Canary, Judgement
from services.registry.rules.canary_panel import PanelMark
from tailor.api.events.v1 import drafts_pb2

# Beyond this number of drafts or judgements, only the newest count.
MAX_MARKED = 100_000
# Replicas and registries have different clocks; the generation tells which drafts belong to the canary.
CLOCK_DIFFERENCE = timedelta(hours=1)


def list_marks(connection: Connection, canary: Canary) -> Sequence[PanelMark]:
    """Marks of the first stored draft that a caller got of each prompt with the canary's generation, by experts who are known."""
    drafts = _find_first_drafts(connection, canary)
    if not drafts:
        return ()
    return [
        PanelMark(
            criterion=mark.criterion,
            prompt_digest=drafts[mark.draft_id][0],
            is_canary=drafts[mark.draft_id][1],
            expert_id=judgement.expert_id,
            mark=mark.mark,
            moment=judgement.create_time,
        )
        for judgement in _read_judgements(connection, canary)
        for mark in judgement.marks
        if mark.draft_id in drafts
    ]


def _find_first_drafts(connection: Connection, canary: Canary) -> Mapping[str, tuple[str, bool]]:
    """The prompt of each draft that counts, and whether the canary wrote it."""
    table = tables.stored_drafts
    query = (
        select(table.c.draft_id, table.c.prompt_digest, table.c.adapter_digest)
        .where(
            table.c.specialist == canary.specialist,
            table.c.create_time > canary.start_time - CLOCK_DIFFERENCE,
            table.c.generation == canary.generation,
            table.c.is_callers,
        )
        .ext(distinct_on(table.c.prompt_digest))
        .order_by(table.c.prompt_digest, table.c.create_time, table.c.draft_id)
        .limit(MAX_MARKED)
    )
    return {
        row.draft_id: (row.prompt_digest, row.adapter_digest == canary.adapter_digest)
        for row in connection.execute(query)
    }


def _read_judgements(connection: Connection, canary: Canary) -> Iterator[Judgement]:
    decisions, judgements = tables.expert_decisions, tables.judgements
    query = (
        select(judgements.c.payload)
        .join(decisions, decisions.c.judgement_id == judgements.c.judgement_id)
        .where(
            decisions.c.specialist == canary.specialist,
            decisions.c.create_time > canary.start_time - CLOCK_DIFFERENCE,
            ~judgements.c.retracted,
        )
        .order_by(decisions.c.position.desc())
        .limit(MAX_MARKED)
    )
    # A judgement of several prompts is listed for each; its marks are then the same ones, of which the last counts.
    for payload in connection.scalars(query):
        yield wire.to_judgement(drafts_pb2.JudgementRecorded.FromString(payload))
