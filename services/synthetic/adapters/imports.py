"""Imports in PostgreSQL."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    Engine,
    ForeignKey,
    Integer,
    String,
    Table,
    delete,
    func,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import JSONB, insert

from services.synthetic.adapters.conditions import is_one_of
from services.synthetic.adapters.locks import session_lock
from services.synthetic.adapters.tables import metadata
from services.synthetic.domain import Row
from services.synthetic.imports.domain import DatasetImport, ImportSpec, add_counts
from services.synthetic.imports.ports import Imports
from tailor.errors import Aborted, Reason
from tailor.sql import transaction
from tailor.storage.ref import Ref

# Joining the chunks of a large import takes a minute or two.
LOCK_ATTEMPTS, LOCK_SECONDS = 600, 0.5
STREAMED_TEXTS = 10_000

imports = Table(
    "dataset_imports",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("request_id", String(128), nullable=False),
    Column("licence", String(128), nullable=False),
    Column("share_percent", Integer, nullable=False),
    Column("source", String(200), nullable=False),
    Column("specialists", JSONB, nullable=False),
    Column("parts", Integer, nullable=False, server_default="0"),
    Column("rows", BigInteger, nullable=False, server_default="0"),
    Column("rejected", JSONB, nullable=False, server_default="{}"),
    # Empty until the import is finished.
    Column("file_uri", String(512), nullable=False, server_default=""),
    Column("file_sha256", String(64), nullable=False, server_default=""),
    Column("file_size_bytes", BigInteger, nullable=False, server_default="0"),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
)

# The ids, for erasures, of the rows that contain surrogates, each with the number of its chunk.
import_texts = Table(
    "dataset_import_texts",
    metadata,
    Column("text_id", String(64), primary_key=True),
    Column("name", String(64), ForeignKey("dataset_imports.name", ondelete="CASCADE"), nullable=False, index=True),
    Column("part", Integer, nullable=False),
)


class SqlImports(Imports):
    """Thread-safe."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def find(self, name: str) -> DatasetImport | None:
        with transaction(self._engine) as connection:
            row = connection.execute(select(imports).where(imports.c.name == name)).one_or_none()
        return None if row is None else _to_import(row)

    def find_all(self) -> list[DatasetImport]:
        with transaction(self._engine) as connection:
            return [_to_import(row) for row in connection.execute(select(imports).order_by(imports.c.name))]

    def begin(self, spec: ImportSpec, request_id: str) -> DatasetImport:
        values = {
            "name": spec.name,
            "request_id": request_id,
            "licence": spec.licence,
            "share_percent": spec.share_percent,
            "source": spec.source,
            "specialists": list(spec.specialists),
        }
        with transaction(self._engine) as connection:
            connection.execute(insert(imports).values(values).on_conflict_do_nothing())
            return _to_import(connection.execute(select(imports).where(imports.c.name == spec.name)).one())

    @contextmanager
    def changing(self, name: str) -> Iterator[None]:
        for _ in range(LOCK_ATTEMPTS):
            with session_lock(self._engine, f"import:{name}") as is_held:
                if is_held:
                    yield
                    return
            time.sleep(LOCK_SECONDS)
        raise Aborted(Reason.ABORTED, "Another call changes this import. Retry when it has ended.")

    def add_part(self, item: DatasetImport, rows: Sequence[Row], rejected: Mapping[str, int]) -> DatasetImport | None:
        statement = (
            update(imports)
            .where(
                imports.c.name == item.spec.name,
                imports.c.request_id == item.request_id,
                imports.c.parts == item.parts,
                imports.c.file_uri == "",
            )
            .values(parts=item.parts + 1, rows=item.rows + len(rows), rejected=add_counts(item.rejected, rejected))
            .returning(*imports.c)
        )
        name, part = item.spec.name, item.parts
        texts = [{"text_id": key, "name": name, "part": part} for row in rows for key in row.document_ids]
        with transaction(self._engine) as connection:
            row = connection.execute(statement).one_or_none()
            if row is not None and texts:
                connection.execute(insert(import_texts).on_conflict_do_nothing(), texts)
        return None if row is None else _to_import(row)

    def finish(self, item: DatasetImport) -> DatasetImport:
        values: dict[str, Any] = {"rows": item.rows, "rejected": dict(item.rejected)}
        if item.file is not None:
            file = item.file
            values |= {"file_uri": file.uri, "file_sha256": file.sha256, "file_size_bytes": file.size_bytes}
        statement = update(imports).where(imports.c.name == item.spec.name).values(values).returning(*imports.c)
        with transaction(self._engine) as connection:
            return _to_import(connection.execute(statement).one())

    def find_text(self, text_id: str) -> str | None:
        with transaction(self._engine) as connection:
            return connection.scalar(select(import_texts.c.name).where(import_texts.c.text_id == text_id))

    def texts(self, name: str) -> Iterator[tuple[str, int]]:
        query = select(import_texts.c.text_id, import_texts.c.part).where(import_texts.c.name == name)
        with transaction(self._engine) as connection:
            for row in connection.execution_options(yield_per=STREAMED_TEXTS).execute(query):
                yield row.text_id, row.part

    def drop_texts(self, text_ids: Sequence[str]) -> None:
        with transaction(self._engine) as connection:
            connection.execute(delete(import_texts).where(is_one_of(import_texts.c.text_id, text_ids)))

    def drop(self, name: str) -> None:
        with transaction(self._engine) as connection:
            connection.execute(delete(imports).where(imports.c.name == name))


def _to_import(row: Any) -> DatasetImport:
    return DatasetImport(
        spec=ImportSpec(row.name, row.licence, row.share_percent, row.source, tuple(row.specialists)),
        request_id=row.request_id,
        parts=row.parts,
        rows=row.rows,
        rejected=dict(row.rejected),
        file=Ref(row.file_uri, row.file_sha256, row.file_size_bytes) if row.file_uri else None,
        created_at=row.created_at,
    )
