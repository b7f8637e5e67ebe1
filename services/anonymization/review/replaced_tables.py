"""Replaced strings in PostgreSQL: how often each surrogate occurs in each document, and what was decided about it. No true value."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, Engine, FromClause, Row, Select, Subquery, and_, func, not_, or_, select
from sqlalchemy.dialects.postgresql import insert

from services.anonymization.review.ports import ReplacedStrings
from services.anonymization.review.replaced_domain import (
    MAX_PLACES,
    MIN_DOCUMENTS,
    MIN_LONE_TIMES,
    MIN_SPREAD,
    CountedDocuments,
    OverRedactionCount,
    ReplacedDecision,
    ReplacedString,
)
from services.anonymization.review.tables import DOCUMENTS, REPLACED, REPLACED_DECISIONS
from tailor.sql import transaction

SURROGATE = func.lower(REPLACED.c.surrogate)


class SqlReplacedStrings(ReplacedStrings):
    """Counts when it is asked, from the rows of each document: there are no totals, so nothing can be counted twice."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def count_documents(self) -> CountedDocuments:
        query = select(func.count(), func.coalesce(func.sum(DOCUMENTS.c.words), 0))
        with transaction(self._engine) as connection:
            documents, words = connection.execute(query).one()
        return CountedDocuments(int(documents), int(words))

    def find_all(self, min_documents: int, offset: int, limit: int) -> list[ReplacedString]:
        query = _with_decisions(min_documents)
        with transaction(self._engine) as connection:
            rows = connection.execute(query.offset(offset).limit(limit)).all()
        return [_to_string(row) for row in rows]

    def find_suspects(self, min_documents: int) -> frozenset[tuple[str, str]]:
        query = _with_decisions(min_documents, is_listed=False)
        with transaction(self._engine) as connection:
            rows = connection.execute(query).all()
        return frozenset((row.entity_type, row.surrogate) for row in rows if row.decision != ReplacedDecision.KEPT)

    def find(self, entity_type: str, surrogate: str, min_documents: int) -> ReplacedString | None:
        query = _with_decisions(min_documents, (_is_string(entity_type, surrogate),))
        with transaction(self._engine) as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else _to_string(row)

    def spellings(self, entity_type: str, surrogate: str) -> list[str]:
        query = select(REPLACED.c.surrogate).where(_is_string(entity_type, surrogate)).distinct()
        with transaction(self._engine) as connection:
            return list(connection.scalars(query))

    def documents_with(self, entity_type: str, surrogate: str) -> list[str]:
        labels = DOCUMENTS.c.department, DOCUMENTS.c.source
        # The first documents of all departments and sources, then the second ones.
        turn = func.row_number().over(partition_by=labels, order_by=DOCUMENTS.c.document_id)
        query = (
            select(DOCUMENTS.c.document_id)
            .join(REPLACED, REPLACED.c.document_id == DOCUMENTS.c.document_id)
            .where(_is_string(entity_type, surrogate))
            .group_by(DOCUMENTS.c.document_id, *labels)
            .order_by(turn, DOCUMENTS.c.document_id)
            .limit(MAX_PLACES)
        )
        with transaction(self._engine) as connection:
            return list(connection.scalars(query))

    def measure(self, suspects: frozenset[tuple[str, str]], document_ids: Sequence[str]) -> OverRedactionCount:
        is_asked = DOCUMENTS.c.document_id.in_(document_ids)
        sizes = select(func.count(), func.coalesce(func.sum(DOCUMENTS.c.words), 0)).where(is_asked)
        counts = (
            select(REPLACED.c.entity_type, SURROGATE, func.sum(REPLACED.c.times))
            .where(REPLACED.c.document_id.in_(document_ids))
            .group_by(REPLACED.c.entity_type, SURROGATE)
        )
        with transaction(self._engine) as connection:
            documents, words = connection.execute(sizes).one()
            replacements = sum(times for kind, name, times in connection.execute(counts) if (kind, name) in suspects)
        return OverRedactionCount(int(replacements), int(words), int(documents))

    def decide(self, entity_type: str, surrogate: str, decision: ReplacedDecision, caller: str) -> None:
        changed = {"decision": decision.value, "decided_by": caller[:128], "decide_time": datetime.now(UTC)}
        table = REPLACED_DECISIONS
        row = {"entity_type": entity_type, "surrogate": surrogate, **changed}
        statement = insert(table).values(row)
        statement = statement.on_conflict_do_update(
            index_elements=[table.c.entity_type, table.c.surrogate], set_=changed
        )
        with transaction(self._engine) as connection:
            connection.execute(statement)


def _is_string(entity_type: str, surrogate: str) -> ColumnElement[bool]:
    return and_(REPLACED.c.entity_type == entity_type, func.lower(REPLACED.c.surrogate) == surrogate)


def _may_be_wrong() -> ColumnElement[bool]:
    """Full names and mail addresses are what the barrier is surest of, and those of colleagues occur in documents of all departments."""
    return and_(not_(_is_full_name(REPLACED)), REPLACED.c.entity_type != "EMAIL_ADDRESS")


def _is_full_name(table: FromClause) -> ColumnElement[bool]:
    return and_(table.c.entity_type == "PERSON", table.c.surrogate.contains(" "))


def _counts(conditions: tuple[ColumnElement[bool], ...]) -> Subquery:
    """The counts of every string that is replaced often enough for any rule."""
    times = func.sum(REPLACED.c.times)
    return (
        select(
            REPLACED.c.entity_type,
            SURROGATE.label("surrogate"),
            times.label("times"),
            func.count(DOCUMENTS.c.document_id.distinct()).label("documents"),
            func.count(func.nullif(DOCUMENTS.c.department, "").distinct()).label("departments"),
            func.count(func.nullif(DOCUMENTS.c.source, "").distinct()).label("sources"),
        )
        .join(DOCUMENTS, REPLACED.c.document_id == DOCUMENTS.c.document_id)
        .where(_may_be_wrong(), *conditions)
        .group_by(REPLACED.c.entity_type, SURROGATE)
        .having(times >= min(MIN_LONE_TIMES, MIN_DOCUMENTS))
        .subquery()
    )


def _with_decisions(
    min_documents: int, conditions: tuple[ColumnElement[bool], ...] = (), *, is_listed: bool = True
) -> Select[Any]:
    """The strings that are hardly personal, with what was decided, the most replaced first.

    Those that may be listed, or those in too few documents for that too.
    """
    counts, table, full = _counts(conditions), REPLACED_DECISIONS, REPLACED.alias()
    words = func.unnest(func.string_to_array(func.lower(full.c.surrogate), " ")).label("word")
    # Joined, because `NOT IN` compares each string with each word once they no longer fit the memory of a query.
    names = select(words).where(_is_full_name(full)).distinct().subquery()
    is_many = counts.c.documents >= min_documents
    is_spread = and_(is_many, func.greatest(counts.c.departments, counts.c.sources) >= MIN_SPREAD)
    is_often = is_many if is_listed else counts.c.times >= MIN_LONE_TIMES
    is_lone = and_(counts.c.entity_type == "PERSON", names.c.word.is_(None), is_often)
    is_own = and_(table.c.entity_type == counts.c.entity_type, table.c.surrogate == counts.c.surrogate)
    return (
        select(counts, table.c.decision, table.c.decided_by, table.c.decide_time)
        .outerjoin(table, is_own)
        .outerjoin(names, names.c.word == counts.c.surrogate)
        .where(or_(is_spread, is_lone))
        .order_by(counts.c.times.desc(), counts.c.entity_type, counts.c.surrogate)
    )


def _to_string(row: Row[Any]) -> ReplacedString:
    decided = row.decision is not None
    return ReplacedString(
        row.entity_type,
        row.surrogate,
        int(row.times),
        row.documents,
        row.departments,
        row.sources,
        ReplacedDecision(row.decision) if decided else None,
        row.decided_by if decided else "",
        int(row.decide_time.timestamp() * 1000) if decided else 0,
    )
