"""Rows as Parquet in the datasets bucket. The settings are fixed, so that equal rows give equal bytes and the same key."""

import hashlib
import io
from collections.abc import Sequence
from dataclasses import asdict

import pyarrow
import pyarrow.parquet

from services.synthetic.domain import PairRow, Row, Split
from services.synthetic.ports import SplitWriter
from tailor.storage.buckets import DATASETS
from tailor.storage.protocol import ObjectStore

MESSAGES = pyarrow.list_(pyarrow.struct([("role", pyarrow.string()), ("content", pyarrow.string())]))
PAIR_SCHEMA = pyarrow.schema(
    [
        ("row_id", pyarrow.string()),
        ("origin", pyarrow.string()),
        # The chat that was answered; it ends with the user's message.
        ("messages", MESSAGES),
        ("chosen", pyarrow.string()),
        ("rejected", pyarrow.string()),
        ("document_ids", pyarrow.list_(pyarrow.string())),
        ("judgement_ids", pyarrow.list_(pyarrow.string())),
        ("made_by", pyarrow.string()),
    ]
)
SCHEMA = pyarrow.schema(
    [
        ("row_id", pyarrow.string()),
        ("origin", pyarrow.string()),
        ("document_ids", pyarrow.list_(pyarrow.string())),
        ("messages", MESSAGES),
        ("made_by", pyarrow.string()),
        # The parts of the document that it was made from; empty for the whole document.
        (
            "spans",
            pyarrow.list_(
                pyarrow.struct(
                    [
                        ("kind", pyarrow.string()),
                        ("number", pyarrow.int32()),
                        ("level", pyarrow.int32()),
                        ("start", pyarrow.int32()),
                        ("end", pyarrow.int32()),
                    ]
                )
            ),
        ),
    ]
)


class ParquetWriter(SplitWriter):
    """Stores rows in the given order."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def write(self, rows: Sequence[Row]) -> Split:
        return self._store_file(to_parquet(rows), len(rows))

    def write_pairs(self, rows: Sequence[PairRow]) -> Split:
        return self._store_file(_bytes([_pair_record(row) for row in rows], PAIR_SCHEMA), len(rows))

    def _store_file(self, data: bytes, rows: int) -> Split:
        key = f"files/{hashlib.sha256(data).hexdigest()}.parquet"
        return Split(self._store.put(DATASETS, key, data, "application/vnd.apache.parquet"), rows)


def to_parquet(rows: Sequence[Row]) -> bytes:
    return _bytes([_record(row) for row in rows], SCHEMA)


def _bytes(records: list[dict[str, object]], schema: pyarrow.Schema) -> bytes:
    table = pyarrow.Table.from_pylist(records, schema=schema)
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(
        table, buffer, version="2.6", compression="zstd", compression_level=3, use_dictionary=False, row_group_size=4096
    )
    return buffer.getvalue()


def _record(row: Row) -> dict[str, object]:
    messages = [("system", row.system_prompt)] if row.system_prompt else []
    messages += [("user", row.prompt), ("assistant", row.completion)]
    return {
        "row_id": row.row_id,
        "origin": row.origin,
        "document_ids": list(row.document_ids),
        "messages": [{"role": role, "content": content} for role, content in messages],
        "made_by": row.made_by,
        "spans": [asdict(span) for span in row.spans],
    }


def _pair_record(row: PairRow) -> dict[str, object]:
    return {
        "row_id": row.row_id,
        "origin": row.origin,
        "messages": [{"role": role, "content": content} for role, content in row.messages],
        "chosen": row.chosen,
        "rejected": row.rejected,
        "document_ids": list(row.document_ids),
        "judgement_ids": list(row.judgement_ids),
        "made_by": row.made_by,
    }
