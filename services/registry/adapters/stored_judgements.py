"""Experts' judgements and the drafts in them, in PostgreSQL."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Engine, Row

from services.registry import wire
from services.registry.adapters import tables
from services.registry.domain import Draft, FactKind, Judgement, Specialist
from services.registry.rules.pipelines import measure_round
from tailor import rankings
from tailor.api.events.v1 import drafts_pb2
from tailor.codec import decode
from tailor.events.envelope import derive_id
from tailor.events.outbox import Outbox
from tailor.rounds import RoundProgress
from tailor.rows import Rows
from tailor.sql import transaction


def list_decided_pairs(connection: Connection, specialist: str) -> list[tuple[str, str]]:
    """Each two drafts of each judgement of a specialist, the better one first, without judgements that were taken back."""
    judgements = Rows(connection, tables.judgements, Row)
    messages = judgements.values(judgements.c.payload, specialist=specialist, retracted=False)
    return [pair for message in messages for pair in rankings.list_decided_pairs(message.ranking, message.places)]


class SqlJudgements(Rows[Judgement]):
    """Experts' judgements."""

    def __init__(self, connection: Connection, outbox: Outbox) -> None:
        super().__init__(connection, tables.judgements, Judgement)
        self._connection = connection
        self._outbox = outbox

    def read(self, row: Row[Any], **given: Any) -> Judgement:
        return wire.to_judgement(row.payload)

    def measure_round(self, specialist: Specialist, new: Sequence[tuple[str, str]] = ()) -> RoundProgress | None:
        return read_round(self._connection, specialist, new)

    def save(self, judgement: Judgement) -> None:
        """Store a judgement and publish it, once."""
        message = wire.from_judgement(judgement)
        if self.add(judgement, payload=message):
            event_id = derive_id("evt", "judgement", judgement.judgement_id)
            self._outbox.add(self._connection, "judgement.recorded.v1", judgement.specialist, message, event_id)

    def retract(self, judgement: Judgement, specialist: Specialist) -> None:
        """Publish that its expert took it back, once. It no longer counts, and `find` still finds it."""
        if self.update({"retracted": True}, judgement_id=judgement.judgement_id, retracted=False):
            message = wire.from_retracted(judgement, read_round(self._connection, specialist))
            event_id = derive_id("evt", "judgement retracted", judgement.judgement_id)
            self._outbox.add(self._connection, "judgement.recorded.v1", judgement.specialist, message, event_id)


def read_round(
    connection: Connection, specialist: Specialist, new: Sequence[tuple[str, str]] = ()
) -> RoundProgress | None:
    """Progress towards the specialist's next round with new pairs of drafts, the better one first.

    None if its pipeline does not learn from rankings.
    """
    pairs = [*list_decided_pairs(connection, specialist.name), *new]
    drafts = find_drafts(connection, {key for pair in pairs for key in pair})
    return measure_round(specialist, pairs, drafts)


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
