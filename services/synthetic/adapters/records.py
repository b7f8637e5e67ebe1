"""Between the rows of tables and the domain."""

from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import Any

from pydantic import TypeAdapter
from sqlalchemy import Connection, bindparam, select, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.types import String

from services.synthetic import wire
from services.synthetic.adapters import tables
from services.synthetic.adapters.conditions import LABELS, is_one_of
from services.synthetic.domain import Dataset, Document, Judgement, KeptDraft, Kind, PairCounts, fingerprint
from tailor.api.events.v1 import models_pb2
from tailor.datasets import SkippedCount
from tailor.storage.ref import Ref
from tailor.values import Labels, Span

SPANS = TypeAdapter(tuple[Span, ...])
JUDGEMENT = TypeAdapter(Judgement)
UNLISTED = text("""
    SELECT key FROM unnest(:keys) AS key
    WHERE NOT EXISTS (SELECT FROM dataset_files f WHERE f.key = key.key)
    AND NOT EXISTS (SELECT FROM segments s WHERE s.file_keys @> ARRAY[key.key]::varchar[])
    AND NOT EXISTS (SELECT FROM written_files w WHERE w.key = key.key)
    ORDER BY key
""").bindparams(bindparam("keys", type_=ARRAY(String)))


def document_row(document: Document) -> dict[str, Any]:
    return {
        "document_id": document.document_id,
        "sequence": document.sequence,
        "digest": document.digest,
        "kind": document.kind.value,
        **asdict(document.labels),
        **_text_columns(document.text),
        "draft_id": document.draft_id,
        "language": document.language,
        "spans": SPANS.dump_python(document.spans, mode="json"),
        "fingerprint": fingerprint(
            document.text.sha256,
            document.language,
            document.labels.source,
            document.spans,
            document.kind,
            document.draft_id,
        ),
    }


def to_document(row: Any) -> Document:
    return Document(
        document_id=row.document_id,
        sequence=row.sequence,
        digest=row.digest,
        kind=Kind(row.kind),
        labels=Labels(*(getattr(row, name) for name in LABELS)),
        text=_text(row),
        draft_id=row.draft_id,
        language=row.language,
        spans=SPANS.validate_python(row.spans),
    )


def draft_row(draft: KeptDraft) -> dict[str, Any]:
    return {name: value for name, value in asdict(draft).items() if name != "text"} | _text_columns(draft.text)


def to_draft(row: Any) -> KeptDraft:
    names = (field.name for field in fields(KeptDraft) if field.name not in ("text", "drawn_from"))
    values = {name: getattr(row, name) for name in names}
    return KeptDraft(**values, text=_text(row), drawn_from=tuple(row.drawn_from))


def _text_columns(text: Ref) -> dict[str, Any]:
    return {f"text_{name}": value for name, value in asdict(text).items()}


def _text(row: Any) -> Ref:
    return Ref(row.text_uri, row.text_sha256, row.text_size_bytes)


def to_stored_dataset(row: Any) -> Dataset:
    message = models_pb2.DatasetBuilt.FromString(row.payload)
    skipped = {reason: SkippedCount(**count) for reason, count in row.skipped.items()}
    return wire.to_dataset(message, row.near_duplicates, skipped, PairCounts(**row.pairs), row.intake_seconds)


def to_judgement(row: Any) -> Judgement:
    return JUDGEMENT.validate_python(dict(row._mapping))


def read_sides(connection: Connection, specialist: str, document_ids: Sequence[str]) -> dict[str, bool]:
    """True for each document that the specialist holds out, without those that have no assignment."""
    table = tables.assignments.c
    query = select(table.document_id, table.held_out).where(table.specialist == specialist)
    rows = connection.execute(query.where(is_one_of(table.document_id, document_ids)))
    return {row.document_id: row.held_out for row in rows}


def unlisted_keys(connection: Connection, keys: Sequence[str]) -> list[str]:
    """Those of the keys that no dataset, stored segment or running build lists, sorted."""
    return list(connection.scalars(UNLISTED, {"keys": list(keys)})) if keys else []
