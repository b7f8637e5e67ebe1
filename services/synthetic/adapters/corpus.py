"""The documents of one build in PostgreSQL: a temporary table on a connection without a transaction."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    Integer,
    Row,
    Select,
    all_,
    and_,
    bindparam,
    delete,
    func,
    literal,
    select,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, aggregate_order_by, insert
from sqlalchemy.schema import CreateTable, DropTable

from services.synthetic.adapters import tables
from services.synthetic.adapters.chosen_documents import choose, chosen, is_held_out, repeated
from services.synthetic.adapters.conditions import is_one_of, read_sides, unlisted_keys
from services.synthetic.adapters.locks import session
from services.synthetic.corpus import (
    NEAR_DUPLICATES,
    Assignment,
    Link,
    Member,
    SegmentKey,
    SegmentResult,
    SplitSize,
)
from services.synthetic.domain import Document, KeptDraft, Kind, Specialist
from tailor.codec import dump, load
from tailor.datasets import SkippedCount
from tailor.rows import Rows

PAGE = 10_000
ADMITTED = ("", NEAR_DUPLICATES)
# Fields of a segment's result that have their own columns; `facts` has the others.
RESULT_COLUMNS = ("number", "inputs", "answers", "shares")

MARK_REPEATED = text("""
    UPDATE build_documents b SET fingerprint = b.fingerprint || md5(found.parts) FROM (
        SELECT p.document_id, string_agg(p.part::text, ',' ORDER BY p.part) AS parts
        FROM (SELECT document_id, unnest(parts) AS part FROM sketches) p JOIN build_parts USING (part)
        GROUP BY p.document_id
    ) found WHERE found.document_id = b.document_id
""")
LINKS = text("""
    WITH new AS (
        SELECT b.document_id FROM build_documents b
        LEFT JOIN assignments a ON a.document_id = b.document_id AND a.specialist = :specialist
        WHERE b.reason IN ('', 'near_duplicates') AND a.document_id IS NULL
    ), touched AS (
        SELECT DISTINCT c.cluster_id FROM cluster_documents c JOIN new USING (document_id)
    ), members AS (
        SELECT c.cluster_id, c.document_id, b.cluster_id AS whole_id
        FROM cluster_documents c JOIN touched USING (cluster_id) JOIN build_documents b USING (document_id)
        WHERE b.reason IN ('', 'near_duplicates')
    ), joining AS (
        SELECT m.cluster_id FROM members m JOIN text_clusters t USING (cluster_id) GROUP BY m.cluster_id, t.whole
        HAVING count(*) > 1 AND (t.whole OR count(DISTINCT m.whole_id) < :boilerplate)
    )
    SELECT m.cluster_id, m.document_id, coalesce(a.component_id, ''), coalesce(a.held_out, false)
    FROM members m JOIN joining USING (cluster_id)
    LEFT JOIN assignments a ON a.document_id = m.document_id AND a.specialist = :specialist
    ORDER BY m.cluster_id, m.document_id
""")


class SqlCorpus:
    """The documents of one build as they were when it began. Used by one thread, on its own connection."""

    def __init__(self, connection: Connection, specialist: Specialist) -> None:
        self._connection = connection
        self._specialist = specialist

    def documents(self) -> int:
        """The number of documents that give rows."""
        return int(self._connection.scalar(select(func.count()).where(chosen.c.reason == "")) or 0)

    def skipped(self) -> dict[str, SkippedCount]:
        """Documents by the reason why a filter removes them, and NEAR_DUPLICATES of an admitted document, which represents them."""
        query = select(chosen.c.reason, func.count(), func.sum(chosen.c.letters)).where(chosen.c.reason != "")
        rows = self._connection.execute(query.group_by(chosen.c.reason))
        return {reason: SkippedCount(documents=count, characters=int(letters)) for reason, count, letters in rows}

    def letters(self) -> int:
        """Characters of the documents that give rows, without blanks."""
        query = select(func.coalesce(func.sum(chosen.c.letters), 0)).where(chosen.c.reason == "")
        return int(self._connection.scalar(query) or 0)

    def intake_seconds(self) -> float:
        """The time that preparing these documents took."""
        sketches = tables.sketches.c
        query = select(func.coalesce(func.sum(sketches.seconds), 0.0)).join_from(
            chosen, tables.sketches, sketches.document_id == chosen.c.document_id
        )
        return float(self._connection.scalar(query) or 0.0)

    def repeated_parts(self, documents: int) -> list[int]:
        """Sorted hashes of the paragraphs and lines that at least this number of the documents have."""
        if not documents:
            return []
        sketches = tables.sketches.c
        parts = (
            select(func.unnest(sketches.parts).label("part"))
            .join_from(chosen, tables.sketches, sketches.document_id == chosen.c.document_id)
            .where(chosen.c.reason == "", ~chosen.c.is_pair)
            .subquery()
        )
        common_parts = select(parts.c.part).group_by(parts.c.part).having(func.count() >= documents)
        self._connection.execute(insert(repeated).from_select(["part"], common_parts))
        self._connection.execute(MARK_REPEATED)
        return list(self._connection.scalars(select(repeated.c.part).order_by(repeated.c.part)))

    def unassigned(self) -> list[str]:
        """Ids of admitted documents without an assignment, in the order in which they were prepared."""
        assignments = tables.assignments
        query = (
            select(chosen.c.document_id)
            .outerjoin(assignments, self._is_assigned())
            .where(chosen.c.reason.in_(ADMITTED), assignments.c.document_id.is_(None))
            .order_by(chosen.c.arrival)
        )
        return list(self._connection.scalars(query))

    def golden(self, document_ids: Sequence[str]) -> set[str]:
        """The golden documents (kind `test`) among these."""
        query = select(chosen.c.document_id).where(chosen.c.is_golden, is_one_of(chosen.c.document_id, document_ids))
        return set(self._connection.scalars(query))

    def links(self, boilerplate_documents: int) -> Iterator[Link]:
        """Stream the clusters that join an unassigned document to others, cluster by cluster.

        A passage that occurs in `boilerplate_documents` documents or more joins nothing; nearly equal documents are always joined.
        """
        values = {"specialist": self._specialist.name, "boilerplate": boilerplate_documents}
        for row in self._connection.execute(LINKS, values):
            yield Link(*row)

    def assign(self, assignments: Iterable[Assignment]) -> None:
        """Keep assignments, a page at a time; existing ones do not change."""
        statement, rest = insert(tables.assignments).on_conflict_do_nothing(), iter(assignments)
        while page := [vars(entry) | self._of_specialist() for entry in itertools.islice(rest, PAGE)]:
            self._connection.execute(statement, page)

    def split_size(self) -> SplitSize:
        """The documents and rows that are assigned."""
        table = tables.assignments.c
        gives_rows = func.count().filter(table.held_out, table.rows > 0)
        rows = func.coalesce(func.sum(table.rows).filter(table.held_out), 0)
        query = select(func.count(), gives_rows, rows).where(table.specialist == self._specialist.name)
        return SplitSize(*map(int, self._connection.execute(query).one()))

    def representatives(self, document_ids: Sequence[str]) -> list[Member]:
        """Those of the documents that represent their near-duplicates and give rows, in the order in which they were prepared."""
        return self._members(select(chosen), is_one_of(chosen.c.document_id, document_ids))

    def held_out(self) -> list[Member]:
        """The held-out documents that give rows, in the order in which they were prepared."""
        return self._members(self._select_assigned(), is_held_out())

    def held_out_digest(self) -> str:
        """Changes whenever one of the held-out documents does."""
        query = select(_digest()).outerjoin(tables.assignments, self._is_assigned())
        return self._connection.scalar(query.where(chosen.c.reason == "", is_held_out())) or ""

    def segments(self) -> list[SegmentKey]:
        """The segments with train documents, by number."""
        query = (
            select(chosen.c.segment, _digest(), func.count())
            .join(tables.assignments, self._is_assigned())
            .where(chosen.c.reason == "", ~is_held_out())
            .group_by(chosen.c.segment)
            .order_by(chosen.c.segment)
        )
        return [SegmentKey(*row) for row in self._connection.execute(query)]

    def train_letters(self) -> tuple[int, int]:
        """Characters, without blanks, of the largest train document and of all."""
        largest, letters = func.max(chosen.c.letters), func.sum(chosen.c.letters)
        query = self._select_assigned().where(chosen.c.reason == "", ~is_held_out())
        row = self._connection.execute(query.with_only_columns(largest, letters)).one()
        return int(row[0] or 0), int(row[1] or 0)

    def members(self, segment: int) -> list[Member]:
        """The train documents of a segment, in the order in which they were prepared."""
        return self._members(self._select_assigned(), chosen.c.segment == segment, ~is_held_out())

    def sources(self, document_ids: Sequence[str]) -> dict[str, str]:
        """The digests of the documents' versions, without unknown documents."""
        table = tables.documents.c
        query = select(table.document_id, table.digest).where(is_one_of(table.document_id, document_ids))
        return {row.document_id: row.digest for row in self._connection.execute(query)}

    def segment_of(self, document_ids: Sequence[str]) -> dict[str, int]:
        """The segments of the documents, without unknown documents."""
        query = select(chosen.c.document_id, chosen.c.segment).where(is_one_of(chosen.c.document_id, document_ids))
        return {row.document_id: row.segment for row in self._connection.execute(query)}

    def sides(self, document_ids: Sequence[str]) -> dict[str, bool]:
        """True for each document that is held out, without those that have no assignment."""
        golden = dict.fromkeys(self.golden(document_ids), True)
        return read_sides(self._connection, self._specialist.name, document_ids) | golden

    def stored_segments(self) -> dict[int, str]:
        """The digest of the inputs of each stored segment, by number."""
        table = tables.segments.c
        query = select(table.number, table.inputs).where(table.specialist == self._specialist.name)
        return {row.number: row.inputs for row in self._connection.execute(query)}

    def segment_result(self, segment: int) -> SegmentResult | None:
        """The stored rows of a segment."""
        row = Rows(self._connection, tables.segments, Row).find(number=segment, **self._of_specialist())
        columns = {} if row is None else {name: getattr(row, name) for name in RESULT_COLUMNS}
        return None if row is None else load(SegmentResult, row.facts | columns)

    def keep_segment(self, result: SegmentResult) -> list[str]:
        """Store the rows of a segment. Returns keys of files of its former rows that no dataset has."""
        segments, facts = Rows(self._connection, tables.segments, Row), dump(result)
        columns = {name: facts.pop(name) for name in RESULT_COLUMNS}
        old = segments.value(segments.c.file_keys, number=result.number, **self._of_specialist()) or []
        segments.upsert(**self._of_specialist(), **columns, facts=facts, file_keys=result.keys)
        return unlisted_keys(self._connection, old)

    def record_files(self, keys: Sequence[str]) -> None:
        """Record files before they are written, until `SqlRepository.finish` lists them, so that none is ever without a record."""
        rows = [self._of_specialist() | {"key": key} for key in keys]
        self._connection.execute(insert(tables.written_files).on_conflict_do_nothing(), rows)

    def forget_segments(self, numbers: Sequence[int]) -> list[str]:
        """Drop all stored segments but these. Returns keys of their files, and of recorded files, that no dataset has."""
        table, written = tables.segments, tables.written_files
        is_other = table.c.number != all_(bindparam(None, list(numbers), type_=ARRAY(Integer)))
        statement = (
            delete(table).where(table.c.specialist == self._specialist.name, is_other).returning(table.c.file_keys)
        )
        keys = {key for row in self._connection.scalars(statement) for key in row}
        mine = delete(written).where(written.c.specialist == self._specialist.name).returning(written.c.key)
        return unlisted_keys(self._connection, sorted(keys | set(self._connection.scalars(mine))))

    def _of_specialist(self) -> dict[str, Any]:
        return {"specialist": self._specialist.name}

    def _is_assigned(self) -> ColumnElement[bool]:
        table = tables.assignments.c
        return and_(table.document_id == chosen.c.document_id, table.specialist == self._specialist.name)

    def _select_assigned(self) -> Select[Any]:
        return select(chosen).join(tables.assignments, self._is_assigned())

    def _members(self, query: Select[Any], *conditions: ColumnElement[bool]) -> list[Member]:
        documents = Rows(self._connection, tables.documents, Document)
        columns = (chosen.c.letters, chosen.c.fingerprint.label("build_fingerprint"), tables.documents)
        query = query.with_only_columns(*columns).join(
            tables.documents, documents.c.document_id == chosen.c.document_id
        )
        ordered = query.where(chosen.c.reason == "", *conditions).order_by(chosen.c.arrival)
        rows = [(documents.read(row), row) for row in self._connection.execute(ordered)]
        drafts = self._find_drafts([document for document, _ in rows])
        return [
            Member(document, row.letters, drafts.get(document.draft_id), row.build_fingerprint)
            for document, row in rows
        ]

    def _find_drafts(self, documents: Iterable[Document]) -> dict[str, KeptDraft]:
        """The saved drafts of the deliverables, by id."""
        keys = {it.draft_id for it in documents if it.kind is Kind.DELIVERABLE}
        drafts = Rows(self._connection, tables.drafts, KeptDraft)
        return {it.draft_id: it for it in drafts.all(saved=True, draft_id=keys, **self._of_specialist())}


class SqlCorpora:
    """Opens the corpora of builds. Thread-safe."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @contextmanager
    def open(self, specialist: Specialist) -> Iterator[SqlCorpus]:
        """The specialist's documents as they are now. Every selected document must be prepared (`SqlSketches`)."""
        with session(self._engine) as connection:
            for table in (chosen, repeated):
                connection.execute(CreateTable(table))
            try:
                connection.execute(insert(chosen).from_select([column.name for column in chosen.c], choose(specialist)))
                connection.execute(text("ANALYZE build_documents"))
                yield SqlCorpus(connection, specialist)
            finally:
                for table in (chosen, repeated):
                    connection.execute(DropTable(table))


def _digest() -> ColumnElement[str]:
    return func.md5(func.string_agg(chosen.c.fingerprint, aggregate_order_by(literal(","), chosen.c.arrival)))
