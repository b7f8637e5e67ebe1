"""Imports in PostgreSQL."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

from sqlalchemy import Engine, func, select
from sqlalchemy import Row as SqlRow

from services.synthetic.adapters.locks import session_lock
from services.synthetic.adapters.tables import dataset_imports, import_texts
from services.synthetic.domain import Row
from services.synthetic.import_domain import DatasetImport, ImportSpec, add_counts
from tailor.errors import Aborted, Reason
from tailor.rows import Rows
from tailor.sql import transaction

# Joining the chunks of a large import takes a minute or two.
LOCK_ATTEMPTS, LOCK_SECONDS = 600, 0.5
STREAMED_TEXTS = 10_000


class SqlImports(Rows[DatasetImport]):
    """Imports, and the ids of their rows. Thread-safe."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine, dataset_imports, DatasetImport)
        self._engine = engine
        self._texts = Rows(engine, import_texts, SqlRow)

    def begin(self, spec: ImportSpec, request_id: str) -> DatasetImport:
        """Add an import, or return the one that has the name."""
        self.add(DatasetImport(spec, request_id), created_at=func.clock_timestamp())
        (item,) = self.all(name=spec.name)
        return item

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
        name, part = item.spec.name, item.parts
        counts = add_counts(item.rejected, rejected)
        changed = replace(item, parts=part + 1, rows=item.rows + len(rows), rejected=counts)
        columns = {"parts": changed.parts, "rows": changed.rows, "rejected": counts}
        same = {"name": name, "request_id": item.request_id, "parts": part, "file_uri": None}
        with transaction(self._engine) as connection:
            if not Rows(connection, dataset_imports, DatasetImport).update(columns, **same):
                return None
            texts = [{"text_id": key, "name": name, "part": part} for row in rows for key in row.document_ids]
            Rows(connection, import_texts, SqlRow).add_all(texts)
        return changed

    def finish(self, item: DatasetImport) -> None:
        """Record the file, and the numbers of accepted and rejected rows. Needs the lock. Raises Aborted if it was dropped."""
        columns = self.write(item)
        names = ("rows", "rejected", "file_uri", "file_sha256", "file_size_bytes")
        if not self.update({name: columns[name] for name in names}, name=item.spec.name):
            raise Aborted(Reason.ABORTED, "Another call changes this import. Retry when it has ended.")

    def find_text(self, text_id: str) -> str | None:
        """The name of the import that has a row with this id."""
        name: str | None = self._texts.value(import_texts.c.name, text_id=text_id)
        return name

    def texts(self, name: str) -> Iterator[tuple[str, int]]:
        """Stream the ids of an import's rows, each with the number of its chunk."""
        query = select(import_texts.c.text_id, import_texts.c.part).where(import_texts.c.name == name)
        with transaction(self._engine) as connection:
            for row in connection.execution_options(yield_per=STREAMED_TEXTS).execute(query):
                yield row.text_id, row.part

    def drop_texts(self, text_ids: Sequence[str]) -> None:
        """Drop ids. Idempotent."""
        self._texts.delete(text_id=text_ids)
