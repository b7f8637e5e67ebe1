"""Rows of imports as Parquet in the datasets bucket: chunks while an import runs, one file sorted by id afterwards."""

import hashlib
import io
import tempfile
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.compute
import pyarrow.parquet

from services.synthetic.datasets import PARQUET
from services.synthetic.domain import Row
from services.synthetic.import_domain import content_id, make_row
from services.synthetic.parquet import MESSAGES
from tailor.datasets import DatasetFile
from tailor.storage.buckets import DATASETS
from tailor.storage.protocol import ObjectStore
from tailor.storage.ref import Ref

TEXTS = ("row_id", "name", "text_id")
SCHEMA = pyarrow.schema([*((name, pyarrow.string()) for name in TEXTS), ("messages", MESSAGES)])
OPTIONS: dict[str, Any] = {"version": "2.6", "compression": "zstd", "compression_level": 3, "use_dictionary": False}
# Rows are sorted in buckets by their first hexadecimal digits, each of about this size.
BUCKET_BYTES = 32 * 1024 * 1024
GROUP_ROWS = 1024
BATCH_ROWS = 128


class ImportFiles:
    """The rows of imports in the datasets bucket. Every method raises Unavailable while the store does not answer. Thread-safe."""

    def __init__(self, store: ObjectStore, bucket_bytes: int = BUCKET_BYTES) -> None:
        self._store = store
        self._bucket_bytes = bucket_bytes

    def write_part(self, name: str, number: int, rows: Sequence[Row]) -> None:
        """Store the rows of a chunk. Replaces an earlier attempt."""
        self._write_part(name, number, pyarrow.Table.from_pylist([_record(name, row) for row in rows], schema=SCHEMA))

    def part_ids(self, name: str, parts: int) -> set[str]:
        """The `content_id` of the rows in the first `parts` chunks."""
        ids: set[str] = set()
        for number in range(parts):
            ids.update(content_id(_to_row(record)) for record in self._read_part(name, number).to_pylist())
        return ids

    def join(self, name: str, parts: int) -> DatasetFile:
        """Store the rows of all chunks as one file, sorted by id. Idempotent."""
        with tempfile.TemporaryDirectory(prefix="tailor-import-") as folder:
            paths, size = self._copy_parts(name, parts, Path(folder))
            path = Path(folder) / "joined.parquet"
            digits = 0
            while size > self._bucket_bytes * 16**digits:
                digits += 1
            with pyarrow.parquet.ParquetWriter(path, SCHEMA, **OPTIONS) as writer:
                for bucket in range(16**digits):
                    table = _read_bucket(paths, f"{bucket:0{digits}x}" if digits else "")
                    if table.num_rows:
                        writer.write_table(table.sort_by("row_id"), row_group_size=GROUP_ROWS)
            return self._put(name, path)

    def drop_from_part(self, name: str, number: int, text_ids: Collection[str]) -> None:
        """Store a chunk again without rows. Idempotent."""
        self._write_part(name, number, _without(self._read_part(name, number), text_ids))

    def drop_from_file(self, name: str, file: Ref, text_ids: Collection[str]) -> DatasetFile:
        """Store a file again without rows, as another one. Idempotent."""
        with tempfile.TemporaryDirectory(prefix="tailor-import-") as folder:
            old, new = Path(folder) / "old.parquet", Path(folder) / "new.parquet"
            self._store.get_file(file, old)
            with (
                pyarrow.parquet.ParquetFile(old) as rows,
                pyarrow.parquet.ParquetWriter(new, SCHEMA, **OPTIONS) as writer,
            ):
                for group in range(rows.num_row_groups):
                    writer.write_table(_without(rows.read_row_group(group), text_ids), row_group_size=GROUP_ROWS)
            return self._put(name, new)

    def keep_only(self, name: str, file: Ref) -> None:
        """Delete everything else of a finished import. Idempotent."""
        self._delete(f"imports/{name}/", {file.key})

    def read(self, file: Ref) -> Iterator[Row]:
        """Stream a file's rows, sorted by id. Raises NotFound if it was replaced."""
        with tempfile.TemporaryDirectory(prefix="tailor-import-") as folder:
            path = Path(folder) / "rows.parquet"
            self._store.get_file(file, path)
            with pyarrow.parquet.ParquetFile(path) as parquet:
                for batch in parquet.iter_batches(BATCH_ROWS):
                    yield from map(_to_row, batch.to_pylist())

    def delete(self, name: str) -> None:
        """Delete everything of an import. Idempotent."""
        self._delete(f"imports/{name}/")

    def _delete(self, prefix: str, kept: Collection[str] = ()) -> None:
        for key in self._store.list_keys(DATASETS, prefix):
            if key not in kept:
                self._store.delete(DATASETS, key)

    def _put(self, name: str, path: Path) -> DatasetFile:
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        ref = self._store.put_file(DATASETS, f"imports/{name}/{digest}.parquet", path, PARQUET)
        return DatasetFile(ref, pyarrow.parquet.read_metadata(path).num_rows)

    def _write_part(self, name: str, number: int, table: pyarrow.Table) -> None:
        buffer = io.BytesIO()
        pyarrow.parquet.write_table(table, buffer, **OPTIONS)
        self._store.put(DATASETS, _part_key(name, number), buffer.getvalue(), PARQUET)

    def _read_part(self, name: str, number: int) -> pyarrow.Table:
        return pyarrow.parquet.read_table(io.BytesIO(self._store.read(DATASETS, _part_key(name, number))))

    def _copy_parts(self, name: str, parts: int, folder: Path) -> tuple[list[Path], int]:
        """The chunks on disk, and their size without compression."""
        paths, size = [], 0
        for number in range(parts):
            paths.append(folder / f"{number}.parquet")
            paths[-1].write_bytes(self._store.read(DATASETS, _part_key(name, number)))
            metadata = pyarrow.parquet.read_metadata(paths[-1])
            size += sum(metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups))
        return paths, size


def _part_key(name: str, number: int) -> str:
    return f"imports/{name}/parts/{number:06d}.parquet"


def _read_bucket(paths: Sequence[Path], digits: str) -> pyarrow.Table:
    """The rows whose ids begin with the digits."""
    tables = []
    for path in paths:
        table = pyarrow.parquet.read_table(path)
        tables.append(table.filter(pyarrow.compute.starts_with(table["row_id"], f"row_{digits}")))
    return pyarrow.concat_tables(tables)


def _without(table: pyarrow.Table, text_ids: Collection[str]) -> pyarrow.Table:
    return table.filter([key not in text_ids for key in table["text_id"].to_pylist()])


def _record(name: str, row: Row) -> dict[str, object]:
    messages = [("system", row.system_prompt)] if row.system_prompt else []
    chat = [{"role": role, "content": content} for role, content in (*messages, *row.messages)]
    return {"row_id": row.row_id, "name": name, "text_id": "".join(row.document_ids), "messages": chat}


def _to_row(record: dict[str, Any]) -> Row:
    messages = tuple((message["role"], message["content"]) for message in record["messages"])
    return make_row(record["name"], messages, record["text_id"])
