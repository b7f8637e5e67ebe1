"""Seed documents of syntheses, and the rows that a synthesis must not repeat."""

import io
import json
from collections.abc import Iterator, Sequence

from pyarrow import parquet
from sqlalchemy import Engine, func, select

from services.synthetic.adapters import tables
from services.synthetic.adapters.conditions import is_admitted, is_one_of, read_sides, selected
from services.synthetic.domain import Document, Kind, Specialist
from tailor.errors import NotFound
from tailor.rows import Rows
from tailor.sql import transaction
from tailor.storage.buckets import DATASETS
from tailor.storage.protocol import ObjectStore
from tailor.values import DatasetKind

PAGE = 500


class SqlSeedDocuments:
    """The documents that may be seeds. Thread-safe."""

    def __init__(self, engine: Engine, store: ObjectStore) -> None:
        self._engine = engine
        self.store = store

    def draw(self, specialist: Specialist, count: int, key: str) -> list[str]:
        """Ids of at most `count` selected documents that are not held out, drawn by a hash with `key`."""
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
        """Those of the documents that the specialist selects and that are not erased, held-out ones included."""
        documents = Rows(self._engine, tables.documents, Document)
        is_selected, order = selected(specialist.selection), documents.c.document_id
        return documents.all(is_selected, document_id=document_ids, order=order)

    def held_out(self, specialist: Specialist, document_ids: Sequence[str]) -> set[str]:
        """Those of the documents that are held out."""
        documents = tables.documents.c
        golden = select(documents.document_id).where(
            documents.kind == Kind.TEST.value, is_one_of(documents.document_id, document_ids)
        )
        with transaction(self._engine) as connection:
            sides = read_sides(connection, specialist.name, document_ids)
            # Golden documents are held out before the first build too.
            return {key for key, is_held_out in sides.items() if is_held_out} | set(connection.scalars(golden))

    def held_out_answers(self, specialist: Specialist) -> Iterator[str]:
        """The answers of the held-out rows of the specialist's newest dataset."""
        for key in self._held_out_files(specialist.name):
            file = parquet.ParquetFile(io.BytesIO(self.store.read(DATASETS, key)))
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
            manifest = json.loads(self.store.read(DATASETS, f"{digest}/manifest.json"))
        except NotFound:
            return []
        return [file["key"] for file in manifest["splits"]["held_out"]["files"]]
