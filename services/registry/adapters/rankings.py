"""Experts' rankings and the drafts in them, from PostgreSQL."""

from collections.abc import Collection, Mapping, Sequence

from sqlalchemy import ARRAY, Connection, Engine, String, any_, cast, select

from services.registry import wire
from services.registry.adapters import tables
from services.registry.domain import Draft, FactKind, Judgement, Specialist
from services.registry.rules.programmes import measure_round
from tailor.api.events.v1 import drafts_pb2
from tailor.rounds import RoundProgress
from tailor.sql import transaction


def list_rankings(connection: Connection, specialist: str) -> Sequence[tuple[str, ...]]:
    """Draft ids of each judgement of a specialist, from best to worst, without those that were taken back."""
    table = tables.judgements
    payloads = connection.scalars(select(table.c.payload).where(table.c.specialist == specialist, ~table.c.retracted))
    return [tuple(drafts_pb2.JudgementRecorded.FromString(payload).ranking) for payload in payloads]


class PanelQueries:
    """Reads the judgements of a specialist."""

    _engine: Engine

    def judgements(self, specialist: str) -> list[Judgement]:
        """All judgements of a specialist, oldest first, without those that were taken back."""
        table = tables.judgements
        query = select(table.c.payload).where(table.c.specialist == specialist, ~table.c.retracted)
        with transaction(self._engine) as connection:
            payloads = connection.scalars(query).all()
        found = [wire.to_judgement(drafts_pb2.JudgementRecorded.FromString(payload)) for payload in payloads]
        return sorted(found, key=lambda judgement: (judgement.create_time, judgement.judgement_id))


def find_drafts(connection: Connection, draft_ids: Collection[str]) -> Mapping[str, Draft]:
    """The catalogued ones of these drafts, by id."""
    table = tables.facts
    # One array as the only parameter, because a statement has at most 65,535 parameters.
    wanted = table.c.fact_id == any_(cast([*draft_ids], ARRAY(String)))
    payloads = connection.scalars(select(table.c.payload).where(table.c.kind == FactKind.DRAFT.value, wanted))
    drafts = (wire.to_draft(drafts_pb2.DraftCreated.FromString(payload)) for payload in payloads)
    return {draft.draft_id: draft for draft in drafts}


def read_round(
    connection: Connection, specialist: Specialist, new: Sequence[Sequence[str]] = ()
) -> RoundProgress | None:
    """Progress towards the specialist's next round, with new rankings that are not stored yet."""
    rankings = [*list_rankings(connection, specialist.name), *new]
    drafts = find_drafts(connection, {key for ranking in rankings for key in ranking})
    return measure_round(specialist, rankings, drafts)
