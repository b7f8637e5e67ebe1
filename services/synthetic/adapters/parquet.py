"""Rows as Parquet in the datasets bucket. Fixed settings: the same rows give the same bytes, and so the same key."""

import hashlib
import io
from collections.abc import Sequence
from dataclasses import asdict

import pyarrow
import pyarrow.parquet

from services.synthetic.domain import Row, Split
from tailor.storage.buckets import DATASETS
from tailor.storage.protocol import ObjectStore

SCHEMA = pyarrow.schema(
    [
        ("row_id", pyarrow.string()),
        ("origin", pyarrow.string()),
        ("document_ids", pyarrow.list_(pyarrow.string())),
        ("messages", pyarrow.list_(pyarrow.struct([("role", pyarrow.string()), ("content", pyarrow.string())]))),
        ("made_by", pyarrow.string()),
        # Where in the document it came from; empty for the whole of it.
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


class ParquetWriter:
    """Satisfies `domain.SplitWriter`."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def write(self, rows: Sequence[Row]) -> Split:
        """Store rows in the order given."""
        data = to_parquet(rows)
        key = f"files/{hashlib.sha256(data).hexdigest()}.parquet"
        return Split(self._store.put(DATASETS, key, data, "application/vnd.apache.parquet"), len(rows))


def to_parquet(rows: Sequence[Row]) -> bytes:
    """The file's bytes."""
    table = pyarrow.Table.from_pylist([_record(row) for row in rows], schema=SCHEMA)
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(
        table, buffer, version="2.6", compression="zstd", compression_level=3, use_dictionary=False, row_group_size=4096
    )
    return buffer.getvalue()


def _record(row: Row) -> dict[str, object]:
    turns = [("system", row.system_prompt)] if row.system_prompt else []
    turns += [("user", row.prompt), ("assistant", row.completion)]
    return {
        "row_id": row.row_id,
        "origin": row.origin,
        "document_ids": list(row.document_ids),
        "messages": [{"role": role, "content": content} for role, content in turns],
        "made_by": row.made_by,
        "spans": [asdict(span) for span in row.spans],
    }
