"""The documents of one build in PostgreSQL: a temporary table on a connection without a transaction."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, astuple
from types import SimpleNamespace
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    Connection,
    Engine,
    Integer,
    MetaData,
    Select,
    String,
    Table,
    all_,
    and_,
    bindparam,
    case,
    cast,
    delete,
    func,
    literal,
    or_,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY, aggregate_order_by, insert
from sqlalchemy.schema import CreateTable, DropTable

from services.synthetic.adapters import tables
from services.synthetic.adapters.conditions import is_admitted, is_one_of, selected
from services.synthetic.adapters.drafts import to_draft
from services.synthetic.adapters.files import unlisted_keys
from services.synthetic.adapters.locks import session
from services.synthetic.adapters.sql import read_sides, to_document
from services.synthetic.building.ports import BuildCorpus, Corpora
from services.synthetic.corpus import (
    NEAR_DUPLICATES,
    NOT_ADMITTED,
    SAME_PUBLISHER,
    SEGMENT_DOCUMENTS,
    UNREADABLE,
    Assignment,
    ExtraCount,
    Link,
    Member,
    SegmentKey,
    SegmentResult,
    SplitSize,
    StoredPart,
)
from services.synthetic.domain import KeptDraft, Kind, Specialist
from tailor.datasets import DatasetFile, SkippedCount, parse_closed_book
from tailor.storage.ref import Ref

PAGE = 10_000
TEMPORARY = MetaData()
chosen = Table(
    "build_documents",
    TEMPORARY,
    Column("document_id", String(64), primary_key=True),
    Column("arrival", BigInteger, nullable=False),
    Column("segment", Integer, nullable=False),
    Column("fingerprint", String, nullable=False),
    Column("cluster_id", BigInteger),
    Column("is_pair", Boolean, nullable=False),
    Column("is_golden", Boolean, nullable=False),
    Column("letters", Integer, nullable=False),
    Column("reason", String(32), nullable=False),
    Column("missed", Boolean, nullable=False),
    prefixes=["TEMPORARY"],
)
repeated = Table("build_parts", TEMPORARY, Column("part", BigInteger, primary_key=True), prefixes=["TEMPORARY"])
ADMITTED = ("", NEAR_DUPLICATES)
FILES = ("train", "sources", "grams")
FACTS = ("kept", "checked", "tokens", "letters", "tasks", "grounding", "languages", "documents")

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


class SqlCorpora(Corpora):
    """Thread-safe."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @contextmanager
    def open(self, specialist: Specialist) -> Iterator[BuildCorpus]:
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


def choose(specialist: Specialist) -> Select[Any]:
    """The specialist's prepared documents, each with the reason why it gives no rows, or an empty one."""
    filters, prepared = specialist.filters, _select_prepared(specialist).subquery()
    copies = (prepared.c.reason, prepared.c.cluster_id)
    # Golden documents stand for their near-duplicates, so that those are not trained on; no limit removes golden ones.
    marked = _replace_reason(prepared, copies, (~prepared.c.is_golden, prepared.c.arrival), 1, NEAR_DUPLICATES)
    if filters.max_source_documents:
        candidates = marked.subquery()
        order = (candidates.c.is_golden, func.md5(func.concat("source", candidates.c.document_id)))
        group = (candidates.c.reason, candidates.c.source)
        marked = _replace_reason(candidates, group, order, filters.max_source_documents, "source")
    rows = marked.subquery().c
    return select(*(rows[column.name] for column in chosen.c))


def _select_prepared(specialist: Specialist) -> Select[Any]:
    documents, sketches, drafts = tables.documents, tables.sketches, tables.drafts
    current = and_(sketches.c.document_id == documents.c.document_id, sketches.c.text_sha256 == documents.c.text_sha256)
    is_drafted = and_(drafts.c.draft_id == documents.c.draft_id, drafts.c.specialist == specialist.name, drafts.c.saved)
    columns = (
        documents.c.document_id,
        documents.c.source,
        sketches.c.arrival,
        cast(sketches.c.arrival // SEGMENT_DOCUMENTS, Integer).label("segment"),
        func.concat(documents.c.fingerprint, drafts.c.text_sha256).label("fingerprint"),
        sketches.c.cluster_id,
        documents.c.kind.in_([kind.value for kind in Kind if kind.is_pair]).label("is_pair"),
        (documents.c.kind == Kind.TEST.value).label("is_golden"),
        sketches.c.letters,
        _reason(specialist).label("reason"),
        literal(False).label("missed"),
    )
    join = documents.join(sketches, current).outerjoin(drafts, is_drafted)
    return select(*columns).select_from(join).where(selected(specialist.selection))


def _reason(specialist: Specialist) -> ColumnElement[str]:
    documents, sketches, filters = tables.documents.c, tables.sketches.c, specialist.filters
    is_golden = documents.kind == Kind.TEST.value
    cases: list[tuple[ColumnElement[bool], str]] = [
        (~is_admitted(specialist.name), NOT_ADMITTED),
        (sketches.cluster_id.is_(None), UNREADABLE),
    ]
    if not filters.same_publisher_tests:
        teaches = select(documents.publisher).where(
            selected(specialist.selection), ~is_golden, documents.publisher != ""
        )
        cases.append((and_(is_golden, documents.publisher.in_(teaches.correlate(None))), SAME_PUBLISHER))
    cases.append((is_golden, ""))
    if filters.languages:
        cases.append((documents.language.not_in(sorted(filters.languages)), "language"))
    too_long = [sketches.characters > filters.max_chars] if filters.max_chars else []
    cases.append((or_(sketches.characters < filters.min_chars, *too_long), "length"))
    return case(*((condition, literal(reason)) for condition, reason in cases), else_="")


def _replace_reason(rows: Any, group: Sequence[Any], order: Sequence[Any], limit: int, reason: str) -> Select[Any]:
    """The rows; those beyond the first ones of their group, among those without a reason, get this reason unless they are golden."""
    number = func.row_number().over(partition_by=list(group), order_by=list(order))
    ranking = select(rows, number.label("number")).subquery().c
    is_beyond = and_(ranking.reason == "", ~ranking.is_golden, ranking.number > limit)
    rest = [column for column in ranking if column.name not in {"reason", "number"}]
    return select(*rest, case((is_beyond, literal(reason)), else_=ranking.reason).label("reason"))


class SqlCorpus(BuildCorpus):
    """Used by one thread, on its own connection."""

    def __init__(self, connection: Connection, specialist: Specialist) -> None:
        self._connection = connection
        self._specialist = specialist

    def documents(self) -> int:
        return int(self._connection.scalar(select(func.count()).where(chosen.c.reason == "")) or 0)

    def skipped(self) -> dict[str, SkippedCount]:
        query = select(chosen.c.reason, func.count(), func.sum(chosen.c.letters)).where(chosen.c.reason != "")
        rows = self._connection.execute(query.group_by(chosen.c.reason))
        return {reason: SkippedCount(documents=count, characters=int(letters)) for reason, count, letters in rows}

    def letters(self) -> int:
        query = select(func.coalesce(func.sum(chosen.c.letters), 0)).where(chosen.c.reason == "")
        return int(self._connection.scalar(query) or 0)

    def intake_seconds(self) -> float:
        sketches = tables.sketches.c
        query = select(func.coalesce(func.sum(sketches.seconds), 0.0)).join_from(
            chosen, tables.sketches, sketches.document_id == chosen.c.document_id
        )
        return float(self._connection.scalar(query) or 0.0)

    def repeated_parts(self, documents: int) -> list[int]:
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
        assignments = tables.assignments
        query = (
            select(chosen.c.document_id)
            .outerjoin(assignments, self._is_assigned())
            .where(chosen.c.reason.in_(ADMITTED), assignments.c.document_id.is_(None))
            .order_by(chosen.c.arrival)
        )
        return list(self._connection.scalars(query))

    def golden(self, document_ids: Sequence[str]) -> set[str]:
        query = select(chosen.c.document_id).where(chosen.c.is_golden, is_one_of(chosen.c.document_id, document_ids))
        return set(self._connection.scalars(query))

    def links(self, boilerplate_documents: int) -> Iterator[Link]:
        values = {"specialist": self._specialist.name, "boilerplate": boilerplate_documents}
        for row in self._connection.execute(LINKS, values):
            yield Link(*row)

    def assign(self, assignments: Iterable[Assignment]) -> None:
        statement, rest = insert(tables.assignments).on_conflict_do_nothing(), iter(assignments)
        while page := [vars(entry) | self._of_specialist() for entry in itertools.islice(rest, PAGE)]:
            self._connection.execute(statement, page)

    def mark_missed(self, document_ids: Sequence[str]) -> None:
        changed = {"missed": True, "fingerprint": func.concat(chosen.c.fingerprint, "missed")}
        is_new = and_(is_one_of(chosen.c.document_id, document_ids), ~chosen.c.missed)
        self._connection.execute(update(chosen).where(is_new).values(changed))

    def closed_book_draw(self, rank: int) -> int | None:
        draw = func.left(func.md5(func.concat("closed_book", chosen.c.document_id)), 8).collate("C")
        query = select(draw).join_from(chosen, tables.assignments, self._is_assigned())
        query = query.where(chosen.c.reason == "", ~tables.assignments.c.held_out)
        threshold = self._connection.scalar(query.order_by(draw).offset(rank).limit(1))
        return None if threshold is None else int(threshold, 16)

    def split_size(self) -> SplitSize:
        table = tables.assignments.c
        gives_rows = func.count().filter(table.held_out, table.rows > 0)
        rows = func.coalesce(func.sum(table.rows).filter(table.held_out), 0)
        query = select(func.count(), gives_rows, rows).where(table.specialist == self._specialist.name)
        return SplitSize(*map(int, self._connection.execute(query).one()))

    def representatives(self, document_ids: Sequence[str]) -> list[Member]:
        return self._members(select(chosen), is_one_of(chosen.c.document_id, document_ids))

    def held_out(self) -> list[Member]:
        return self._members(self._select_assigned(), is_held_out())

    def held_out_digest(self) -> str:
        query = select(_digest()).outerjoin(tables.assignments, self._is_assigned())
        return self._connection.scalar(query.where(chosen.c.reason == "", is_held_out())) or ""

    def segments(self) -> list[SegmentKey]:
        query = (
            select(chosen.c.segment, _digest(), func.count())
            .join(tables.assignments, self._is_assigned())
            .where(chosen.c.reason == "", ~is_held_out())
            .group_by(chosen.c.segment)
            .order_by(chosen.c.segment)
        )
        return [SegmentKey(*row) for row in self._connection.execute(query)]

    def train_letters(self) -> tuple[int, int]:
        largest, letters = func.max(chosen.c.letters), func.sum(chosen.c.letters)
        query = self._select_assigned().where(chosen.c.reason == "", ~is_held_out())
        row = self._connection.execute(query.with_only_columns(largest, letters)).one()
        return int(row[0] or 0), int(row[1] or 0)

    def members(self, segment: int) -> list[Member]:
        return self._members(self._select_assigned(), chosen.c.segment == segment, ~is_held_out())

    def sources(self, document_ids: Sequence[str]) -> dict[str, str]:
        table = tables.documents.c
        query = select(table.document_id, table.digest).where(is_one_of(table.document_id, document_ids))
        return {row.document_id: row.digest for row in self._connection.execute(query)}

    def segment_of(self, document_ids: Sequence[str]) -> dict[str, int]:
        query = select(chosen.c.document_id, chosen.c.segment).where(is_one_of(chosen.c.document_id, document_ids))
        return {row.document_id: row.segment for row in self._connection.execute(query)}

    def sides(self, document_ids: Sequence[str]) -> dict[str, bool]:
        golden = dict.fromkeys(self.golden(document_ids), True)
        return read_sides(self._connection, self._specialist.name, document_ids) | golden

    def stored_segments(self) -> dict[int, str]:
        table = tables.segments.c
        query = select(table.number, table.inputs).where(table.specialist == self._specialist.name)
        return {row.number: row.inputs for row in self._connection.execute(query)}

    def segment_result(self, segment: int) -> SegmentResult | None:
        table = tables.segments
        query = select(table).filter_by(specialist=self._specialist.name, number=segment)
        row = self._connection.execute(query).one_or_none()
        return None if row is None else _to_result(row)

    def keep_segment(self, result: SegmentResult) -> list[str]:
        table = tables.segments
        key = self._of_specialist() | {"number": result.number}
        old = self._connection.scalar(select(table.c.file_keys).filter_by(**key)) or []
        row = key | _from_result(result)
        statement = insert(table).values(row)
        changed = {name: statement.excluded[name] for name in row if name not in {"specialist", "number"}}
        self._connection.execute(statement.on_conflict_do_update(index_elements=list(key), set_=changed))
        return unlisted_keys(self._connection, old)

    def record_files(self, keys: Sequence[str]) -> None:
        rows = [self._of_specialist() | {"key": key} for key in keys]
        self._connection.execute(insert(tables.written_files).on_conflict_do_nothing(), rows)

    def forget_segments(self, numbers: Sequence[int]) -> list[str]:
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
        documents, drafts = tables.documents, tables.drafts
        is_drafted = and_(
            drafts.c.draft_id == documents.c.draft_id, drafts.c.specialist == self._specialist.name, drafts.c.saved
        )
        rows = self._connection.execute(
            query.with_only_columns(
                chosen.c.letters,
                chosen.c.missed,
                chosen.c.fingerprint.label("build_fingerprint"),
                documents,
                *(column.label(f"draft__{column.name}") for column in drafts.c),
            )
            .join(documents, documents.c.document_id == chosen.c.document_id)
            .outerjoin(drafts, is_drafted)
            .where(chosen.c.reason == "", *conditions)
            .order_by(chosen.c.arrival)
        )
        return [
            Member(to_document(row), row.letters, _draft_of(row), row.missed, row.build_fingerprint) for row in rows
        ]


def is_held_out() -> ColumnElement[bool]:
    """Whether an assigned document is held out: a document that became golden is, also if it was in train before."""
    return or_(tables.assignments.c.held_out, chosen.c.is_golden)


def _draft_of(row: Any) -> KeptDraft | None:
    if row.draft__draft_id is None or row.kind != Kind.DELIVERABLE.value:
        return None
    return to_draft(
        SimpleNamespace(**{column.name: getattr(row, f"draft__{column.name}") for column in tables.drafts.c})
    )


def _digest() -> ColumnElement[str]:
    return func.md5(func.string_agg(chosen.c.fingerprint, aggregate_order_by(literal(","), chosen.c.arrival)))


def _from_result(result: SegmentResult) -> dict[str, Any]:
    facts = {name: getattr(result, name) for name in FACTS}
    facts |= {name: _from_file(getattr(result, name)) for name in FILES}
    facts["skipped"] = {reason: asdict(count) for reason, count in result.skipped.items()}
    facts |= {"closed_book": result.closed_book.as_json(), "extra": asdict(result.extra)}
    facts["parts"] = [[part.inputs, list(astuple(part.ref))] for part in result.parts]
    return {
        "inputs": result.inputs,
        "facts": facts,
        "file_keys": result.keys,
        **{name: getattr(result, name) for name in ("answers", "shares")},
    }


def _to_result(row: Any) -> SegmentResult:
    facts: dict[str, Any] = dict(row.facts)
    facts["skipped"] = {reason: SkippedCount(**count) for reason, count in facts["skipped"].items()}
    facts |= {name: _to_file(facts[name]) for name in FILES}
    facts |= {"closed_book": parse_closed_book(facts["closed_book"]), "extra": ExtraCount(**facts["extra"])}
    facts |= {"answers": row.answers, "shares": row.shares}
    facts["parts"] = tuple(StoredPart(inputs, Ref(*ref)) for inputs, ref in facts["parts"])
    return SegmentResult(number=row.number, inputs=row.inputs, **facts)


def _from_file(file: DatasetFile | None) -> list[Any] | None:
    return None if file is None else [file.ref.uri, file.ref.sha256, file.ref.size_bytes, file.rows]


def _to_file(value: list[Any] | None) -> DatasetFile | None:
    return None if value is None else DatasetFile(Ref(*value[:3]), value[3])
