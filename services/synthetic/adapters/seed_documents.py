"""Seed documents of syntheses, and the rows that a synthesis must not repeat."""

import io
import json
from collections.abc import Iterator, Sequence

from pyarrow import parquet
from sqlalchemy import ColumnElement, Engine, String, func, literal, select
from sqlalchemy.dialects.postgresql import ARRAY

from services.synthetic.adapters import tables
from services.synthetic.adapters.conditions import is_admitted, selected
from services.synthetic.adapters.sql import to_document
from services.synthetic.adapters.synthesis_rows import Sides
from services.synthetic.domain import Document, Kind, Specialist
from services.synthetic.synthesis.ports import SeedDocuments
from tailor.errors import NotFound
from tailor.sql import transaction
from tailor.storage.buckets import DATASETS
from tailor.storage.protocol import ObjectStore
from tailor.values import DatasetKind

PAGE = 500


class SqlSeedDocuments(SeedDocuments):
    """In PostgreSQL and the datasets bucket. Thread-safe."""

    def __init__(self, engine: Engine, store: ObjectStore, sides: Sides) -> None:
        self._engine = engine
        self._store = store
        self._sides = sides

    def draw(self, specialist: Specialist, count: int, key: str) -> list[str]:
        column = tables.documents.c.document_id
        is_teachable = tables.documents.c.kind != Kind.TEST.value
        query = select(column).where(selected(specialist.selection), is_admitted(specialist.name), is_teachable)
        query = query.order_by(func.md5(func.concat(column, key)))
        document_ids: list[str] = []
        with transaction(self._engine) as connection:
            for part in connection.execution_options(yield_per=PAGE).execute(query).scalars().partitions(PAGE):
                held_out = self.held_out(specialist, list(part))
                document_ids += [document_id for document_id in part if document_id not in held_out]
                if len(document_ids) >= count:
                    break
        return document_ids[:count]

    def find(self, specialist: Specialist, document_ids: Sequence[str]) -> list[Document]:
        query = select(tables.documents).where(_among(document_ids), selected(specialist.selection))
        with transaction(self._engine) as connection:
            rows = connection.execute(query.order_by(tables.documents.c.document_id))
            return [to_document(row) for row in rows]

    def held_out(self, specialist: Specialist, document_ids: Sequence[str]) -> set[str]:
        held_out = {key for key, is_held_out in self._sides(specialist.name, document_ids).items() if is_held_out}
        return held_out | self._golden(document_ids)

    def _golden(self, document_ids: Sequence[str]) -> set[str]:
        """Golden documents, also before the first build holds them out."""
        documents = tables.documents.c
        query = select(documents.document_id).where(documents.kind == Kind.TEST.value, _among(document_ids))
        with transaction(self._engine) as connection:
            return set(connection.scalars(query))

    def held_out_answers(self, specialist: Specialist) -> Iterator[str]:
        for key in self._held_out_files(specialist.name):
            file = parquet.ParquetFile(io.BytesIO(self._store.read(DATASETS, key)))
            for batch in file.iter_batches(PAGE, columns=["messages"]):
                for messages in batch.column(0).to_pylist():
                    yield from (message["content"] for message in messages if message["role"] == "assistant")

    def _held_out_files(self, specialist: str) -> list[str]:
        """Keys of the held-out split's files in the newest dataset; none before the first."""
        builds = tables.builds.c
        newest = select(builds.digest).where(builds.specialist == specialist, builds.kind == DatasetKind.SFT.value)
        with transaction(self._engine) as connection:
            digest = connection.scalar(newest)
        if not digest:
            return []
        try:
            manifest = json.loads(self._store.read(DATASETS, f"{digest}/manifest.json"))
        except NotFound:
            return []
        return [file["key"] for file in manifest["splits"]["held_out"]["files"]]


def _among(document_ids: Sequence[str]) -> ColumnElement[bool]:
    """One parameter, however many ids there are."""
    return tables.documents.c.document_id == func.any(literal(list(document_ids), ARRAY(String)))
