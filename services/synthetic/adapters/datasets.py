"""Datasets in PostgreSQL."""

from collections.abc import Collection, Sequence

from sqlalchemy import Engine, delete, func, or_, select, update

from services.synthetic.adapters import tables
from services.synthetic.adapters.conditions import is_one_of
from services.synthetic.adapters.records import to_stored_dataset
from services.synthetic.corpus import ALL_SEGMENTS, SEGMENT_DOCUMENTS
from services.synthetic.domain import Dataset
from tailor.sql import transaction
from tailor.values import DatasetKind


class SqlDatasets:
    """The datasets that exist. Thread-safe."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def newest(self, specialist: str, kind: DatasetKind) -> Dataset | None:
        """The specialist's last build of a kind; None if there is none."""
        builds, datasets = tables.builds.c, tables.datasets.c
        is_last = (datasets.specialist == builds.specialist) & (datasets.digest == builds.digest)
        query = select(tables.datasets).join(tables.builds, is_last)
        query = query.where(builds.specialist == specialist, builds.kind == kind.value)
        with transaction(self._engine) as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else to_stored_dataset(row)

    def find(self, digest: str) -> list[Dataset]:
        """The datasets of a digest: specialists with equal rows share it."""
        datasets = tables.datasets.c
        query = select(tables.datasets).where(datasets.digest == digest).order_by(datasets.specialist)
        with transaction(self._engine) as connection:
            return [to_stored_dataset(row) for row in connection.execute(query)]

    def files_of(self, dataset: Dataset, document_id: str) -> frozenset[str]:
        """Keys of the dataset's files that may have rows of the document: that of its segment, and those without one."""
        files, sketches = tables.dataset_files.c, tables.sketches.c
        segment = select(sketches.arrival // SEGMENT_DOCUMENTS).where(sketches.document_id == document_id)
        query = select(files.key).where(
            files.specialist == dataset.specialist,
            files.digest == dataset.digest,
            or_(files.segment == ALL_SEGMENTS, files.segment == segment.scalar_subquery()),
        )
        with transaction(self._engine) as connection:
            return frozenset(connection.scalars(query))

    def datasets(self, specialist: str) -> list[Dataset]:
        """Every dataset of a specialist."""
        table = tables.datasets
        query = select(table).where(table.c.specialist == specialist).order_by(table.c.digest)
        with transaction(self._engine) as connection:
            return [to_stored_dataset(row) for row in connection.execute(query)]

    def dataset(self, specialist: str, digest: str) -> Dataset | None:
        query = select(tables.datasets).filter_by(specialist=specialist, digest=digest)
        with transaction(self._engine) as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else to_stored_dataset(row)

    def source_files(self, specialist: str, segments: Collection[int] | None) -> list[tuple[str, str]]:
        """(dataset, key) of the specialist's sources files that may name a document of the segments; None for any segment."""
        table = tables.dataset_files.c
        query = select(table.digest, table.key).where(table.specialist == specialist, table.is_sources)
        if segments is not None:
            query = query.where(table.segment.in_({*segments, ALL_SEGMENTS}))
        with transaction(self._engine) as connection:
            return [(digest, key) for digest, key in connection.execute(query.order_by(table.digest, table.key))]

    def specialists(self) -> list[str]:
        """The names of all specialists with a dataset."""
        with transaction(self._engine) as connection:
            return list(connection.scalars(select(tables.datasets.c.specialist).distinct()))

    def newest_digests(self, specialist: str) -> dict[DatasetKind, str]:
        """The digests of the last builds by kind, without kinds that were never built."""
        builds = tables.builds.c
        query = select(builds.kind, builds.digest).where(builds.specialist == specialist, builds.digest != "")
        with transaction(self._engine) as connection:
            return {DatasetKind(kind): digest for kind, digest in connection.execute(query)}

    def unshared_files(self, digests: Sequence[str]) -> list[str]:
        """Keys of the datasets' files that no other dataset and no stored segment has."""
        table, segments = tables.dataset_files.c, tables.segments.c
        shared = select(table.key).where(~is_one_of(table.digest, digests))
        stored = select(func.unnest(segments.file_keys))
        conditions = (is_one_of(table.digest, digests), table.key.not_in(shared), table.key.not_in(stored))
        query = select(table.key).where(*conditions).distinct()
        with transaction(self._engine) as connection:
            return sorted(connection.scalars(query))

    def drop_dataset(self, dataset: Dataset) -> None:
        """Drop a dataset and the answers that name it. If it was the newest, there is no newest one afterwards."""
        key = {"specialist": dataset.specialist, "digest": dataset.digest}
        with transaction(self._engine) as connection:
            for table in (tables.datasets, tables.dataset_files, tables.requests):
                connection.execute(delete(table).filter_by(**key))
            connection.execute(update(tables.builds).filter_by(**key).values(digest="", fingerprint=""))
