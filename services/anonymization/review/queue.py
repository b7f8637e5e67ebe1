"""Samples, the passages that wait, marks and terms, in PostgreSQL."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import timedelta

from sqlalchemy import Connection, Engine, Row, and_, func, or_, select, text

from services.anonymization.review.domain import (
    PassageKind,
    PassageMark,
    QueueCounts,
    QueuedPassage,
    ReviewTerm,
    SampleDraw,
    Stratum,
    StratumResult,
)
from services.anonymization.review.sampling import DrawnSample
from services.anonymization.review.tables import MARKS, PASSAGES, SAMPLES, STRATA, TERMS
from tailor.events.envelope import derive_id
from tailor.rows import Rows

RESERVED = timedelta(minutes=10)


class SqlReviewQueue(Rows[QueuedPassage]):
    """Samples, the passages that wait, and what was decided. Thread-safe, also across replicas."""

    def __init__(self, database: Engine | Connection) -> None:
        super().__init__(database, PASSAGES, QueuedPassage)
        self._terms = Rows(database, TERMS, ReviewTerm)

    def start_sample(self, sample_id: str, seed: int, drawn: DrawnSample) -> None:
        """Queue a sample in the place of what waits of the last one."""
        passages = []
        for position, (stratum, place) in enumerate(drawn.passages):
            key = derive_id("psg", sample_id, *place)
            queued = QueuedPassage(key, PassageKind.SAMPLE, *place, stratum.source, stratum.language)
            passages.append(self.write(queued, sample_id=sample_id, position=position))
        with self._connect() as connection:
            strata, queue = Rows(connection, STRATA, Stratum), SqlReviewQueue(connection)
            queue.delete(kind=PassageKind.SAMPLE, is_decided=False)
            Rows(connection, SAMPLES, Row).insert(sample_id=sample_id, seed=seed)
            strata.add_all(strata.write(stratum, sample_id=sample_id) for stratum in drawn.strata)
            queue.add_all(passages)

    def newest_sample(self) -> SampleDraw | None:
        """The newest sample with its results so far."""
        with self._connect() as connection:
            sample = Rows(connection, SAMPLES, Row, "number").newest()
            if sample is None:
                return None
            results = _results(connection, sample.sample_id)
        return SampleDraw(sample.sample_id, sample.seed, sample.create_time, tuple(results))

    def count_waiting(self) -> QueueCounts:
        return QueueCounts(**{kind.value: self.count(kind=kind, is_decided=False) for kind in PassageKind})

    def reserve(self, reviewer: str, kind: PassageKind | None) -> QueuedPassage | None:
        """The reviewer's next passage; nobody else gets it for ten minutes. None if nothing waits."""
        since, table = func.now() - RESERVED, self.c
        is_mine = and_(table.reserved_by == reviewer, func.coalesce(table.reserve_time > since, False))
        is_free = or_(table.reserve_time.is_(None), table.reserve_time <= since)
        of_kind = {} if kind is None else {"kind": kind}
        query = self.select(or_(is_mine, is_free), is_decided=False, **of_kind)
        order = (
            is_mine.desc(),
            table.kind == PassageKind.DISAGREEMENT.value,
            table.skips,
            table.position,
            table.passage_id,
        )
        with self._connect() as connection:
            queue = SqlReviewQueue(connection)
            free = queue.fetch(query.order_by(*order).limit(1).with_for_update(skip_locked=True))
            for passage in free:
                queue.hold(passage.passage_id, reviewer)
        return next(iter(free), None)

    def hold(self, passage_id: str, reviewer: str) -> None:
        """Reserve a passage."""
        self.update({"reserved_by": reviewer, "reserve_time": func.now()}, passage_id=passage_id)

    def decide(self, queued: QueuedPassage, reviewer: str, marks: Sequence[tuple[PassageMark, ReviewTerm]]) -> bool:
        """Record marks and their terms; a newer decision about a term replaces an older one. False if the passage no longer waits."""
        change = {"is_decided": True, "decided_by": reviewer, "decide_time": func.clock_timestamp(), "reserved_by": ""}
        with self._connect() as connection:
            stored, terms = Rows(connection, MARKS, PassageMark), Rows(connection, TERMS, ReviewTerm)
            queue = SqlReviewQueue(connection)
            if not queue.update(change, passage_id=queued.passage_id, is_decided=False):
                return False
            for mark, term in marks:
                stored.insert(mark, passage_id=queued.passage_id, term_hash=term.term_hash)
                # Under a new number, by which other replicas notice it.
                terms.upsert(term, keep=("words",), computed={"number": text("DEFAULT")})
        return True

    def skip(self, passage_id: str) -> None:
        """Put a passage at the end of the queue."""
        self.update({"skips": self.c.skips + 1, "reserved_by": "", "reserve_time": None}, passage_id=passage_id)

    def undo(self, reviewer: str) -> str | None:
        """Take back the reviewer's last decision with the terms that only it recorded, and reserve the passage. None if there is none."""
        newest = select(SAMPLES.c.sample_id).order_by(SAMPLES.c.number.desc()).limit(1).scalar_subquery()
        is_current = or_(self.c.kind == PassageKind.DISAGREEMENT.value, self.c.sample_id == newest)
        query = self.select(is_current, is_decided=True, decided_by=reviewer).order_by(self.c.decide_time.desc())
        with self._connect() as connection:
            queue, marks, terms = SqlReviewQueue(connection), Rows(connection, MARKS, Row), Rows(connection, TERMS, Row)
            last = next(iter(queue.fetch(query.limit(1).with_for_update())), None)
            if last is None:
                return None
            hashes = marks.values(marks.c.term_hash, passage_id=last.passage_id)
            marks.delete(passage_id=last.passage_id)
            terms.delete(terms.c.term_hash.not_in(select(marks.c.term_hash)), term_hash=hashes)
            waits = {"is_decided": False, "decided_by": "", "decide_time": None}
            queue.update(waits, passage_id=last.passage_id)
            queue.hold(last.passage_id, reviewer)
        return last.passage_id

    def drop_term(self, term_hash: str) -> bool:
        """Forget a term; False if it is unknown."""
        return self._terms.delete(term_hash=term_hash) > 0

    def terms_version(self) -> str:
        """Changes whenever the terms do."""
        count, newest = func.count(), func.coalesce(func.max(TERMS.c.number), 0)
        with self._connect() as connection:
            terms, number = connection.execute(select(count, newest)).one()
        return f"{terms}.{number}" if terms else ""

    def terms(self) -> list[ReviewTerm]:
        """All terms."""
        return self._terms.all()


def _results(connection: Connection, sample_id: str) -> list[StratumResult]:
    strata = Rows(connection, STRATA, Stratum).all(sample_id=sample_id)
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
            stratum,
            reviewed.get((stratum.source, stratum.language), 0),
            left.get((stratum.source, stratum.language), 0),
            types[stratum.source, stratum.language],
            values[stratum.source, stratum.language],
        )
        for stratum in strata
    ]
