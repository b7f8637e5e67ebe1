"""Finds datasets in PostgreSQL."""

from typing import Any

from sqlalchemy import Engine, or_, select

from services.synthetic import wire
from services.synthetic.adapters import tables
from services.synthetic.corpus import ALL_SEGMENTS, SEGMENT_DOCUMENTS
from services.synthetic.ports import DatasetFinder
from services.synthetic.views import StoredDataset
from tailor.api.events.v1 import models_pb2
from tailor.sql import transaction
from tailor.values import DatasetKind
from tailor.wire import to_ref


class SqlDatasetFinder(DatasetFinder):
    """Thread-safe."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def newest(self, specialist: str, kind: DatasetKind) -> StoredDataset | None:
        builds, datasets = tables.builds.c, tables.datasets.c
        is_last = (datasets.specialist == builds.specialist) & (datasets.digest == builds.digest)
        query = select(datasets.payload).join(tables.builds, is_last)
        query = query.where(builds.specialist == specialist, builds.kind == kind.value)
        with transaction(self._engine) as connection:
            payload = connection.scalar(query)
        return None if payload is None else _to_stored(payload)

    def find(self, digest: str) -> list[StoredDataset]:
        datasets = tables.datasets.c
        query = select(datasets.payload).where(datasets.digest == digest).order_by(datasets.specialist)
        with transaction(self._engine) as connection:
            return [_to_stored(payload) for payload in connection.scalars(query)]

    def files_of(self, dataset: StoredDataset, document_id: str) -> frozenset[str]:
        files, sketches = tables.dataset_files.c, tables.sketches.c
        segment = select(sketches.arrival // SEGMENT_DOCUMENTS).where(sketches.document_id == document_id)
        query = select(files.key).where(
            files.specialist == dataset.specialist,
            files.digest == dataset.digest,
            or_(files.segment == ALL_SEGMENTS, files.segment == segment.scalar_subquery()),
        )
        with transaction(self._engine) as connection:
            return frozenset(connection.scalars(query))


def _to_stored(payload: Any) -> StoredDataset:
    message = models_pb2.DatasetBuilt.FromString(payload)
    kind = wire.to_dataset_kind(message.kind)
    return StoredDataset(message.digest, message.specialist, kind, to_ref(message.manifest))
