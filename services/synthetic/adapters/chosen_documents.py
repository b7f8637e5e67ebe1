"""Chooses the documents of a build: a temporary table of a specialist's prepared documents, each with the reason why it gives no rows."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    Integer,
    MetaData,
    Select,
    String,
    Table,
    and_,
    case,
    cast,
    func,
    literal,
    or_,
    select,
)

from services.synthetic.adapters import tables
from services.synthetic.adapters.conditions import is_admitted, selected
from services.synthetic.corpus import NEAR_DUPLICATES, NOT_ADMITTED, SAME_PUBLISHER, SEGMENT_DOCUMENTS, UNREADABLE
from services.synthetic.domain import Kind, Specialist

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
    prefixes=["TEMPORARY"],
)
repeated = Table("build_parts", TEMPORARY, Column("part", BigInteger, primary_key=True), prefixes=["TEMPORARY"])


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


def is_held_out() -> ColumnElement[bool]:
    """Whether an assigned document is held out: a document that became golden is, also if it was in train before."""
    return or_(tables.assignments.c.held_out, chosen.c.is_golden)
