"""Experts' rankings and the drafts in them, from PostgreSQL."""

from collections.abc import Collection, Mapping, Sequence

from sqlalchemy import Connection, Engine, Row

from services.registry import wire
from services.registry.adapters import tables
from services.registry.domain import Draft, FactKind, Judgement, Specialist
from services.registry.rules.pipelines import measure_round
from tailor import rankings
from tailor.api.events.v1 import drafts_pb2
from tailor.codec import decode
from tailor.rounds import RoundProgress
from tailor.rows import Rows
from tailor.sql import transaction


def list_decided_pairs(connection: Connection, specialist: str) -> list[tuple[str, str]]:
    """Each two drafts of each judgement of a specialist, the better one first, without judgements that were taken back."""
    judgements = Rows(connection, tables.judgements, Row)
    messages = judgements.values(judgements.c.payload, specialist=specialist, retracted=False)
    return [pair for message in messages for pair in rankings.list_decided_pairs(message.ranking, message.places)]


class PanelQueries:
    """Reads the judgements of a specialist."""

    _engine: Engine

    def judgements(self, specialist: str) -> list[Judgement]:
        """All judgements of a specialist, oldest first, without those that were taken back."""
        rows = Rows(self._engine, tables.judgements, Row)
        messages = rows.values(rows.c.payload, specialist=specialist, retracted=False)
        return sorted(
            map(wire.to_judgement, messages), key=lambda judgement: (judgement.create_time, judgement.judgement_id)
        )

    def draft_adapters(self, draft_ids: Collection[str]) -> Mapping[str, str]:
        """The adapter of each catalogued one of these drafts; empty for the base."""
        with transaction(self._engine) as connection:
            drafts = find_drafts(connection, draft_ids)
        return {draft_id: draft.adapter_digest for draft_id, draft in drafts.items()}


def find_drafts(connection: Connection, draft_ids: Collection[str]) -> Mapping[str, Draft]:
    """The catalogued ones of these drafts, by id."""
    facts = Rows(connection, tables.facts, Row)
    payloads = facts.values(facts.c.payload, kind=FactKind.DRAFT, fact_id=[*draft_ids])
    drafts = (decode(Draft, drafts_pb2.DraftCreated.FromString(payload)) for payload in payloads)
    return {draft.draft_id: draft for draft in drafts}


def read_round(
    connection: Connection, specialist: Specialist, new: Sequence[tuple[str, str]] = ()
) -> RoundProgress | None:
    """Progress towards the specialist's next round, with new pairs that are not stored yet."""
    pairs = [*list_decided_pairs(connection, specialist.name), *new]
    drafts = find_drafts(connection, {key for pair in pairs for key in pair})
    return measure_round(specialist, pairs, drafts)
