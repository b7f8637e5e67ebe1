"""Conditions and queries that several adapters share. Those over documents and judgements take the same time however many there are."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    String,
    and_,
    any_,
    bindparam,
    case,
    exists,
    func,
    literal,
    or_,
    select,
    text,
    union_all,
)
from sqlalchemy.dialects.postgresql import ARRAY

from services.synthetic.adapters import tables
from services.synthetic.domain import Kind, OriginKind, Specialist
from tailor.values import DatasetKind, Selection

UNLISTED = text("""
    SELECT key FROM unnest(:keys) AS key
    WHERE NOT EXISTS (SELECT FROM dataset_files f WHERE f.key = key.key)
    AND NOT EXISTS (SELECT FROM segments s WHERE s.file_keys @> ARRAY[key.key]::varchar[])
    AND NOT EXISTS (SELECT FROM written_files w WHERE w.key = key.key)
    ORDER BY key
""").bindparams(bindparam("keys", type_=ARRAY(String)))
LABELS = ("source", "department", "confidentiality", "publisher")


def admits(columns: Any, selection: Selection) -> ColumnElement[bool]:
    """The condition for columns of labels that the selection admits."""
    admitted = selection.admitted.items()
    return and_(literal(True), *(getattr(columns, name).in_(sorted(values)) for name, values in admitted))


def selected(selection: Selection) -> ColumnElement[bool]:
    """The condition for selected documents."""
    return admits(tables.documents.c, selection)


def origin_kind() -> ColumnElement[str]:
    """The kind of a document's origin."""
    kinds = {Kind.EXAMPLE.value: OriginKind.EXAMPLES.value, Kind.TEST.value: OriginKind.TESTS.value}
    return case(kinds, value=tables.documents.c.kind, else_=OriginKind.SOURCE.value)


def origin_name() -> ColumnElement[str]:
    """The name of a document's origin: its source, or the publisher of an example or a golden document."""
    documents = tables.documents.c
    return case((origin_kind() == OriginKind.SOURCE.value, documents.source), else_=documents.publisher)


def is_admitted(specialist: str) -> ColumnElement[bool]:
    """The condition for documents from an origin that the specialist has admitted, or from any source before its first dataset."""
    origins = tables.origins.c
    same = (origins.specialist == specialist, origins.kind == origin_kind(), origins.name == origin_name())
    is_first = and_(origin_kind() == OriginKind.SOURCE.value, ~had_dataset(specialist))
    return or_(exists().where(*same), is_first)


def had_dataset(specialist: str) -> ColumnElement[bool]:
    """Whether a specialist has a dataset of documents, or had one that an erasure dropped."""
    builds = tables.builds.c
    of_documents = (builds.specialist == specialist, builds.kind == DatasetKind.SFT.value)
    return exists().where(*of_documents, builds.built_at.is_not(None))


def is_one_of(column: ColumnElement[str], values: Sequence[str]) -> ColumnElement[bool]:
    """The condition for one of many values, which are one parameter however many they are."""
    return column == any_(bindparam(None, list(values), type_=ARRAY(String)))


def newest_item(specialist: Specialist, kind: DatasetKind) -> Select[Any]:
    """Position and age of the newest item that datasets of a kind are made from; position 0 if there is none."""
    if kind is DatasetKind.SFT:
        newest = tables.newest_labels.c
        items = select(newest.position, newest.changed_at).where(admits(newest, specialist.selection)).subquery()
    else:
        items = union_all(*(_last(query) for query in _pair_items(specialist))).subquery()
    return select(func.coalesce(func.max(items.c.position), 0), age_of(func.max(items.c.changed_at)))


def count_new_items(specialist: Specialist, kind: DatasetKind, after: int, limit: int) -> Select[Any]:
    """Count the items after a position, up to the limit."""
    if kind is DatasetKind.SFT:
        items = [_new_documents(specialist, after, limit)]
    else:
        queries = _pair_items(specialist)
        items = [query.where(query.selected_columns.position > after).limit(limit) for query in queries]
    limited = union_all(*(select(item.subquery().c.position) for item in items)).limit(limit).subquery()
    return select(func.count()).select_from(limited)


def _new_documents(specialist: Specialist, after: int, limit: int) -> Select[Any]:
    """New documents by their labels, each through the index of labels and positions."""
    labels, documents = tables.newest_labels.c, tables.documents.c
    same = (getattr(documents, name) == getattr(labels, name) for name in LABELS)
    new = select(documents.position).where(*same, documents.position > after).limit(limit).lateral()
    is_new = (labels.position > after, admits(labels, specialist.selection))
    return select(new.c.position).select_from(tables.newest_labels.join(new, literal(True))).where(*is_new).limit(limit)


def _pair_items(specialist: Specialist) -> tuple[Select[Any], Select[Any]]:
    documents, judgements = tables.documents.c, tables.judgements.c
    ranked = select(judgements.position, judgements.changed_at).where(
        judgements.specialist == specialist.name, func.jsonb_array_length(judgements.ranking) > 1
    )
    is_finished = and_(documents.kind == text(f"'{Kind.DELIVERABLE.value}'"), documents.draft_id != text("''"))
    finished = select(documents.position, documents.changed_at).where(is_finished, selected(specialist.selection))
    return ranked, finished


def _last(query: Select[Any]) -> Select[Any]:
    newest = query.order_by(query.selected_columns.position.desc()).limit(1).subquery()
    return select(newest.c.position, newest.c.changed_at)


def age_of(column: Any) -> ColumnElement[Any]:
    """The seconds since a time, by the clock of the database."""
    return func.extract("epoch", func.clock_timestamp() - column)


def read_sides(connection: Connection, specialist: str, document_ids: Sequence[str]) -> dict[str, bool]:
    """True for each document that the specialist holds out, without those that have no assignment."""
    table = tables.assignments.c
    query = select(table.document_id, table.held_out).where(table.specialist == specialist)
    rows = connection.execute(query.where(is_one_of(table.document_id, document_ids)))
    return {row.document_id: row.held_out for row in rows}


def unlisted_keys(connection: Connection, keys: Sequence[str]) -> list[str]:
    """Those of the keys that no dataset, stored segment or running build lists, sorted."""
    return list(connection.scalars(UNLISTED, {"keys": list(keys)})) if keys else []
