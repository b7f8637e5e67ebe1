"""Imports in PostgreSQL."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import (
    Engine,
    delete,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import insert

from services.synthetic.adapters.conditions import is_one_of
from services.synthetic.adapters.locks import session_lock
from services.synthetic.adapters.tables import dataset_imports as imports
from services.synthetic.adapters.tables import import_texts
from services.synthetic.domain import Row
from services.synthetic.import_domain import DatasetImport, ImportSpec, add_counts
from tailor.errors import Aborted, Reason
from tailor.sql import transaction
from tailor.storage.ref import Ref

# Joining the chunks of a large import takes a minute or two.
LOCK_ATTEMPTS, LOCK_SECONDS = 600, 0.5
STREAMED_TEXTS = 10_000


class SqlImports:
    """Imports in the database. Thread-safe."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def find(self, name: str) -> DatasetImport | None:
        with transaction(self._engine) as connection:
            row = connection.execute(select(imports).where(imports.c.name == name)).one_or_none()
        return None if row is None else _to_import(row)

    def find_all(self) -> list[DatasetImport]:
        """All imports by name."""
        with transaction(self._engine) as connection:
            return [_to_import(row) for row in connection.execute(select(imports).order_by(imports.c.name))]

    def begin(self, spec: ImportSpec, request_id: str) -> DatasetImport:
        """Add an import, or return the one that has the name."""
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
        """Hold the import's lock, under which its files change, without a transaction. Raises Aborted if another holds it for long."""
        for _ in range(LOCK_ATTEMPTS):
            with session_lock(self._engine, f"import:{name}") as is_held:
                if is_held:
                    yield
                    return
            time.sleep(LOCK_SECONDS)
        raise Aborted(Reason.ABORTED, "Another call changes this import. Retry when it has ended.")

    def add_part(self, item: DatasetImport, rows: Sequence[Row], rejected: Mapping[str, int]) -> DatasetImport | None:
        """Record the next chunk, and the ids of its rows for erasures; None if another call has changed the import since it was read."""
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
        """Record the file, and the numbers of accepted and rejected rows. Needs the lock."""
        values: dict[str, Any] = {"rows": item.rows, "rejected": dict(item.rejected)}
        if item.file is not None:
            file = item.file
            values |= {"file_uri": file.uri, "file_sha256": file.sha256, "file_size_bytes": file.size_bytes}
        statement = update(imports).where(imports.c.name == item.spec.name).values(values).returning(*imports.c)
        with transaction(self._engine) as connection:
            return _to_import(connection.execute(statement).one())

    def find_text(self, text_id: str) -> str | None:
        """The name of the import that has a row with this id."""
        with transaction(self._engine) as connection:
            return connection.scalar(select(import_texts.c.name).where(import_texts.c.text_id == text_id))

    def texts(self, name: str) -> Iterator[tuple[str, int]]:
        """Stream the ids of an import's rows, each with the number of its chunk."""
        query = select(import_texts.c.text_id, import_texts.c.part).where(import_texts.c.name == name)
        with transaction(self._engine) as connection:
            for row in connection.execution_options(yield_per=STREAMED_TEXTS).execute(query):
                yield row.text_id, row.part

    def drop_texts(self, text_ids: Sequence[str]) -> None:
        """Drop ids. Idempotent."""
        with transaction(self._engine) as connection:
            connection.execute(delete(import_texts).where(is_one_of(import_texts.c.text_id, text_ids)))

    def drop(self, name: str) -> None:
        """Drop an import. Idempotent."""
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
