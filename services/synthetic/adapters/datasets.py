"""Datasets in PostgreSQL."""

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import Connection, Engine, Row, delete, func, or_, select, update

from services.synthetic import wire
from services.synthetic.adapters import tables
from services.synthetic.adapters.conditions import is_one_of
from services.synthetic.corpus import ALL_SEGMENTS, SEGMENT_DOCUMENTS
from services.synthetic.domain import Dataset, PairCounts
from tailor.codec import load
from tailor.datasets import SkippedCount
from tailor.rows import Rows
from tailor.values import DatasetKind


class SqlDatasets(Rows[Dataset]):
    """The datasets that exist. Thread-safe if it has an engine."""

    def __init__(self, database: Engine | Connection) -> None:
        super().__init__(database, tables.datasets, Dataset)

    def read(self, row: Row[Any], **given: Any) -> Dataset:
        skipped = {reason: load(SkippedCount, count) for reason, count in row.skipped.items()}
        counts = {"near_duplicates": row.near_duplicates, "skipped": skipped, "intake_seconds": row.intake_seconds}
        return wire.to_dataset(row.payload, pairs=load(PairCounts, row.pairs), **counts, **given)

    def last_build(self, specialist: str, kind: DatasetKind) -> Dataset | None:
        """The specialist's last build of a kind; None if there is none."""
        builds = tables.builds.c
        is_last = (self.c.specialist == builds.specialist) & (self.c.digest == builds.digest)
        query = self.select(builds.kind == kind.value, specialist=specialist).join(tables.builds, is_last)
        return next(iter(self.fetch(query)), None)

    def files_of(self, dataset: Dataset, document_id: str) -> frozenset[str]:
        """Keys of the dataset's files that may have rows of the document: that of its segment, and those without one."""
        files, sketches = tables.dataset_files.c, tables.sketches.c
        segment = select(sketches.arrival // SEGMENT_DOCUMENTS).where(sketches.document_id == document_id)
        query = select(files.key).where(
            files.specialist == dataset.specialist,
            files.digest == dataset.digest,
            or_(files.segment == ALL_SEGMENTS, files.segment == segment.scalar_subquery()),
        )
        with self._connect() as connection:
            return frozenset(connection.scalars(query))

    def source_files(self, specialist: str, segments: Collection[int] | None) -> list[tuple[str, str]]:
        """(dataset, key) of the specialist's sources files that may name a document of the segments; None for any segment."""
        table = tables.dataset_files.c
        query = select(table.digest, table.key).where(table.specialist == specialist, table.is_sources)
        if segments is not None:
            query = query.where(table.segment.in_({*segments, ALL_SEGMENTS}))
        with self._connect() as connection:
            return [(digest, key) for digest, key in connection.execute(query.order_by(table.digest, table.key))]

    def specialists(self) -> list[str]:
        """The names of all specialists with a dataset."""
        return sorted({*self.values(self.c.specialist)})

    def newest_digests(self, specialist: str) -> dict[DatasetKind, str]:
        """The digests of the last builds by kind, without kinds that were never built."""
        builds = Rows(self._database, tables.builds, Row)
        rows = builds.all(builds.c.digest != "", specialist=specialist)
        return {DatasetKind(row.kind): row.digest for row in rows}

    def unshared_files(self, digests: Sequence[str]) -> list[str]:
        """Keys of the datasets' files that no other dataset and no stored segment has."""
        table, segments = tables.dataset_files.c, tables.segments.c
        shared = select(table.key).where(~is_one_of(table.digest, digests))
        stored = select(func.unnest(segments.file_keys))
        conditions = (is_one_of(table.digest, digests), table.key.not_in(shared), table.key.not_in(stored))
        query = select(table.key).where(*conditions).distinct()
        with self._connect() as connection:
            return sorted(connection.scalars(query))

    def drop_dataset(self, dataset: Dataset) -> None:
        """Drop a dataset and the answers that name it. If it was the newest, there is no newest one afterwards."""
        key = {"specialist": dataset.specialist, "digest": dataset.digest}
        with self._connect() as connection:
            for table in (tables.datasets, tables.dataset_files, tables.requests):
                connection.execute(delete(table).filter_by(**key))
            connection.execute(update(tables.builds).filter_by(**key).values(digest="", fingerprint=""))
