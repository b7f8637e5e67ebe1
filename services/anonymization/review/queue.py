"""Samples, the passages that wait, marks and terms, in PostgreSQL."""

import json
from collections import defaultdict
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import Connection, Engine, Row, and_, delete, func, or_, select, text, update
from sqlalchemy.dialects.postgresql import insert

from services.anonymization.review.documents import passage_row
from services.anonymization.review.domain import (
    PassageKind,
    PassageMark,
    PassageStretch,
    QueueCounts,
    QueuedPassage,
    ReviewTerm,
    SampleDraw,
    Stratum,
    StratumResult,
    StretchKind,
)
from services.anonymization.review.ports import ReviewQueue
from services.anonymization.review.sampling import DrawnSample
from services.anonymization.review.tables import MARKS, PASSAGES, SAMPLES, STRATA, TERMS
from tailor.events.envelope import derive_id
from tailor.sql import transaction

RESERVED = timedelta(minutes=10)


class SqlReviewQueue(ReviewQueue):
    """Thread-safe, also across replicas."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def start_sample(self, sample_id: str, seed: int, drawn: DrawnSample) -> None:
        passages = []
        for position, (stratum, place) in enumerate(drawn.passages):
            key = derive_id("psg", sample_id, *place)
            queued = QueuedPassage(key, PassageKind.SAMPLE, *place, stratum.source, stratum.language)
            passages.append(passage_row(queued, sample_id, position))
        strata = [
            {
                "sample_id": sample_id,
                "source": stratum.source,
                "language": stratum.language,
                "passages": stratum.passages,
                "drawn": stratum.drawn,
            }
            for stratum in drawn.strata
        ]
        with transaction(self._engine) as connection:
            connection.execute(delete(PASSAGES).where(PASSAGES.c.sample_id != "", ~PASSAGES.c.is_decided))
            connection.execute(insert(SAMPLES).values(sample_id=sample_id, seed=seed))
            connection.execute(insert(STRATA), strata)
            connection.execute(insert(PASSAGES), passages)

    def newest_sample(self) -> SampleDraw | None:
        with transaction(self._engine) as connection:
            sample = connection.execute(select(SAMPLES).order_by(SAMPLES.c.number.desc()).limit(1)).one_or_none()
            if sample is None:
                return None
            results = _results(connection, sample.sample_id)
        return SampleDraw(sample.sample_id, sample.seed, int(sample.create_time.timestamp() * 1000), tuple(results))

    def count(self) -> QueueCounts:
        kind = (PASSAGES.c.sample_id == "").label("is_disagreement")
        query = select(kind, func.count()).where(~PASSAGES.c.is_decided).group_by(kind)
        with transaction(self._engine) as connection:
            counts: dict[bool, int] = {row[0]: row[1] for row in connection.execute(query)}
        return QueueCounts(counts.get(False, 0), counts.get(True, 0))

    def reserve(self, reviewer: str, kind: PassageKind | None) -> QueuedPassage | None:
        since = func.now() - RESERVED
        is_mine = and_(PASSAGES.c.reserved_by == reviewer, func.coalesce(PASSAGES.c.reserve_time > since, False))
        is_free = or_(PASSAGES.c.reserve_time.is_(None), PASSAGES.c.reserve_time <= since)
        query = select(PASSAGES).where(~PASSAGES.c.is_decided, or_(is_mine, is_free))
        if kind is not None:
            is_disagreement = PASSAGES.c.sample_id == ""
            query = query.where(is_disagreement if kind is PassageKind.DISAGREEMENT else ~is_disagreement)
        order = is_mine.desc(), PASSAGES.c.sample_id == "", PASSAGES.c.skips, PASSAGES.c.position, PASSAGES.c.passage_id
        with transaction(self._engine) as connection:
            row = connection.execute(query.order_by(*order).limit(1).with_for_update(skip_locked=True)).one_or_none()
            if row is not None:
                _reserve(connection, row.passage_id, reviewer)
        return None if row is None else _load(row)

    def find(self, passage_id: str) -> QueuedPassage | None:
        query = select(PASSAGES).where(PASSAGES.c.passage_id == passage_id, ~PASSAGES.c.is_decided)
        with transaction(self._engine) as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else _load(row)

    def is_decided(self, passage_id: str) -> bool:
        query = select(PASSAGES.c.is_decided).where(PASSAGES.c.passage_id == passage_id)
        with transaction(self._engine) as connection:
            return bool(connection.execute(query).scalar())

    def decide(self, queued: QueuedPassage, reviewer: str, marks: Sequence[tuple[PassageMark, ReviewTerm]]) -> bool:
        change = {"is_decided": True, "decided_by": reviewer, "decide_time": func.clock_timestamp(), "reserved_by": ""}
        waiting = PASSAGES.c.passage_id == queued.passage_id, ~PASSAGES.c.is_decided
        with transaction(self._engine) as connection:
            if not connection.execute(update(PASSAGES).where(*waiting).values(change)).rowcount:
                return False
            for mark, term in marks:
                row = {"start": mark.start, "end": mark.end, "entity_type": mark.entity_type}
                connection.execute(insert(MARKS).values(passage_id=queued.passage_id, term_hash=term.term_hash, **row))
                _replace_term(connection, term)
        return True

    def skip(self, passage_id: str) -> None:
        change = {"skips": PASSAGES.c.skips + 1, "reserved_by": "", "reserve_time": None}
        with transaction(self._engine) as connection:
            connection.execute(update(PASSAGES).where(PASSAGES.c.passage_id == passage_id).values(change))

    def drop(self, passage_id: str) -> None:
        with transaction(self._engine) as connection:
            connection.execute(delete(PASSAGES).where(PASSAGES.c.passage_id == passage_id))

    def undo(self, reviewer: str) -> str | None:
        newest = select(SAMPLES.c.sample_id).order_by(SAMPLES.c.number.desc()).limit(1).scalar_subquery()
        current = or_(PASSAGES.c.sample_id == "", PASSAGES.c.sample_id == newest)
        query = select(PASSAGES.c.passage_id).where(PASSAGES.c.is_decided, PASSAGES.c.decided_by == reviewer, current)
        query = query.order_by(PASSAGES.c.decide_time.desc()).limit(1).with_for_update()
        with transaction(self._engine) as connection:
            passage_id = connection.execute(query).scalar()
            if passage_id is None:
                return None
            hashes = connection.execute(
                delete(MARKS).where(MARKS.c.passage_id == passage_id).returning(MARKS.c.term_hash)
            ).scalars()
            elsewhere = select(MARKS.c.term_hash)
            connection.execute(
                delete(TERMS).where(TERMS.c.term_hash.in_(hashes.all()), TERMS.c.term_hash.not_in(elsewhere))
            )
            change = {"is_decided": False, "decided_by": "", "decide_time": None}
            connection.execute(update(PASSAGES).where(PASSAGES.c.passage_id == passage_id).values(change))
            _reserve(connection, passage_id, reviewer)
        return str(passage_id)

    def drop_term(self, term_hash: str) -> bool:
        with transaction(self._engine) as connection:
            return connection.execute(delete(TERMS).where(TERMS.c.term_hash == term_hash)).rowcount > 0

    def terms_version(self) -> str:
        """Changes whenever the terms do."""
        query = select(func.count(), func.coalesce(func.max(TERMS.c.number), 0))
        with transaction(self._engine) as connection:
            count, newest = connection.execute(query).one()
        return f"{count}.{newest}" if count else ""

    def terms(self) -> list[ReviewTerm]:
        """All terms."""
        with transaction(self._engine) as connection:
            rows = connection.execute(select(TERMS)).all()
        return [ReviewTerm(row.term_hash, row.entity_type, row.words) for row in rows]


def _reserve(connection: Connection, passage_id: str, reviewer: str) -> None:
    change = {"reserved_by": reviewer, "reserve_time": func.now()}
    connection.execute(update(PASSAGES).where(PASSAGES.c.passage_id == passage_id).values(change))


def _replace_term(connection: Connection, term: ReviewTerm) -> None:
    """Store the newest decision about a term under a new number."""
    row = {"term_hash": term.term_hash, "entity_type": term.entity_type, "words": term.words}
    changed = {"entity_type": term.entity_type, "number": text("DEFAULT")}
    statement = insert(TERMS).values(row)
    connection.execute(statement.on_conflict_do_update(index_elements=[TERMS.c.term_hash], set_=changed))


def _load(row: Row[Any]) -> QueuedPassage:
    stretches = tuple(
        PassageStretch(start, end, StretchKind.DISAGREEMENT, entity_type)
        for start, end, entity_type in json.loads(row.stretches)
    )
    kind = PassageKind.SAMPLE if row.sample_id else PassageKind.DISAGREEMENT
    return QueuedPassage(
        row.passage_id, kind, row.document_id, row.sequence, row.number, row.source, row.language, stretches
    )


def _results(connection: Connection, sample_id: str) -> list[StratumResult]:
    strata = connection.execute(select(STRATA).where(STRATA.c.sample_id == sample_id)).all()
    key = PASSAGES.c.source, PASSAGES.c.language
    decided = PASSAGES.c.sample_id == sample_id, PASSAGES.c.is_decided
    reviewed = {
        (source, language): count
        for source, language, count in connection.execute(select(*key, func.count()).where(*decided).group_by(*key))
    }
    marked = PASSAGES.join(MARKS, PASSAGES.c.passage_id == MARKS.c.passage_id)
    passages = func.count(MARKS.c.passage_id.distinct())
    personal = (*decided, MARKS.c.entity_type != "")
    of_any = select(*key, passages).select_from(marked).where(*personal).group_by(*key)
    left = {(source, language): count for source, language, count in connection.execute(of_any)}
    kind = MARKS.c.entity_type
    of_type = select(*key, kind, passages, func.count()).select_from(marked).where(*personal).group_by(*key, kind)
    types: dict[tuple[str, str], dict[str, int]] = defaultdict(dict)
    values: dict[tuple[str, str], dict[str, int]] = defaultdict(dict)
    for source, language, name, count, marks in connection.execute(of_type):
        types[source, language][name], values[source, language][name] = count, marks
    return [
        StratumResult(
            Stratum(row.source, row.language, row.passages, row.drawn),
            reviewed.get((row.source, row.language), 0),
            left.get((row.source, row.language), 0),
            types[row.source, row.language],
            values[row.source, row.language],
        )
        for row in strata
    ]
