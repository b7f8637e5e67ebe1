"""Replaced strings in PostgreSQL: how often each surrogate occurs in each document, and what was decided about it. No true value."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Engine,
    FromClause,
    Row,
    Select,
    Subquery,
    and_,
    cast,
    func,
    not_,
    or_,
    select,
)

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
from tailor.api.anonymization.v1.replaced_pb2 import ListReplacedRequest
from tailor.listing import Listing, ListPage
from tailor.rows import Rows
from tailor.sql import transaction

SURROGATE = func.lower(REPLACED.c.surrogate)
WORDS = cast(func.coalesce(func.sum(DOCUMENTS.c.words), 0), BigInteger)


class SqlReplacedStrings(Rows[ReplacedString]):
    """How often surrogates occur in the newest versions of documents. Strings are named by type and surrogate in small letters.

    Counts when it is asked, from the rows of each document: there are no totals, so nothing can be counted twice.
    """

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine, REPLACED, ReplacedString)
        self._engine = engine

    def count_documents(self) -> CountedDocuments:
        sizes = select(func.count().label("documents"), WORDS.label("words"))
        return Rows(self._engine, DOCUMENTS, CountedDocuments).fetch(sizes)[0]

    def list_page(self, request: ListReplacedRequest, min_documents: int) -> ListPage[ReplacedString]:
        """Strings in at least `min_documents` documents of enough departments or sources, the most replaced first. Reads all counts."""
        strings = _with_decisions(min_documents).subquery()
        key = func.concat(strings.c.entity_type, " ", strings.c.surrogate)
        return Listing(self, request, key, order_by="times desc", columns={**strings.c}).page(select(strings))

    def find_suspects(self, min_documents: int) -> frozenset[tuple[str, str]]:
        """The strings that count as over-redaction: listed ones that are not kept by decision, and those in too few documents."""
        strings = self.fetch(_with_decisions(min_documents, is_listed=False))
        return frozenset(
            (string.entity_type, string.surrogate) for string in strings if string.decision is not ReplacedDecision.KEPT
        )

    def find_listed(self, entity_type: str, surrogate: str, min_documents: int) -> ReplacedString | None:
        """One string, if it would be listed."""
        return next(iter(self.fetch(_with_decisions(min_documents, (_is_string(entity_type, surrogate),)))), None)

    def spellings(self, entity_type: str, surrogate: str) -> list[str]:
        """The surrogate in all capitals that documents have."""
        return [*{*self.values(self.c.surrogate, _is_string(entity_type, surrogate))}]

    def documents_with(self, entity_type: str, surrogate: str) -> list[str]:
        """Ids of at most ten documents that have the surrogate, of as many departments and sources as possible."""
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
        """How often any of the strings is replaced in the documents."""
        is_asked = DOCUMENTS.c.document_id.in_(document_ids)
        sizes = select(func.count(), WORDS).where(is_asked)
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
        """Record a decision in the place of an earlier one."""
        Rows(self._engine, REPLACED_DECISIONS, Row).upsert(
            entity_type=entity_type,
            surrogate=surrogate,
            decision=decision,
            decided_by=caller[:128],
            decide_time=datetime.now(UTC),
        )


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
            cast(times, BigInteger).label("times"),
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
    """The strings that are hardly personal, with what was decided.

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
    decided_by = func.coalesce(table.c.decided_by, "").label("decided_by")
    is_own = and_(table.c.entity_type == counts.c.entity_type, table.c.surrogate == counts.c.surrogate)
    return (
        select(counts, table.c.decision, decided_by, table.c.decide_time)
        .outerjoin(table, is_own)
        .outerjoin(names, names.c.word == counts.c.surrogate)
        .where(or_(is_spread, is_lone))
    )
