"""Erasing documents and datasets in PostgreSQL."""

from collections.abc import Sequence

from sqlalchemy import Engine, delete, func, or_, select, update

from services.synthetic.adapters import tables
from services.synthetic.adapters.conditions import is_one_of
from services.synthetic.adapters.files import unlisted_keys
from services.synthetic.adapters.sketches import STORING, drop_memberships, drop_orphans
from services.synthetic.adapters.sql import to_stored_dataset
from services.synthetic.adapters.synthesis_rows import forget_seed
from services.synthetic.corpus import ALL_SEGMENTS, SEGMENT_DOCUMENTS
from services.synthetic.domain import Dataset
from services.synthetic.ports import Holdings
from tailor.sql import transaction
from tailor.storage.ref import Ref
from tailor.words import DatasetKind


class SqlHoldings(Holdings):
    """Thread-safe."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def segment_of(self, document_id: str) -> int | None:
        table = tables.sketches.c
        query = select(table.arrival // SEGMENT_DOCUMENTS).where(table.document_id == document_id)
        with transaction(self._engine) as connection:
            return connection.scalar(query)

    def forget_document(self, document_id: str) -> tuple[int, list[str]]:
        """Foreign keys delete its sketch and its place in the queue too."""
        segment = self.segment_of(document_id)
        documents, assignments, segments = tables.documents, tables.assignments, tables.segments
        with transaction(self._engine) as connection:
            connection.execute(STORING)
            forget_seed(connection, document_id)
            clusters = drop_memberships(connection, [document_id])
            connection.execute(delete(assignments).where(assignments.c.document_id == document_id))
            count = connection.execute(delete(documents).where(documents.c.document_id == document_id)).rowcount
            drop_orphans(connection, clusters)
            statement = delete(segments).where(segments.c.number == segment).returning(segments.c.file_keys)
            keys = {key for row in connection.scalars(statement) for key in row}
            return count, unlisted_keys(connection, sorted(keys))

    def forget_drafts(self, adapters: Sequence[str]) -> tuple[int, list[str]]:
        table = tables.drafts
        statement = delete(table).where(is_one_of(table.c.adapter_digest, adapters))
        with transaction(self._engine) as connection:
            forgotten = connection.execute(statement.returning(table.c.text_uri, table.c.saved)).all()
            uris = {row.text_uri for row in forgotten if row.saved}
            shared = set(connection.scalars(select(table.c.text_uri).where(is_one_of(table.c.text_uri, sorted(uris)))))
            return len(forgotten), sorted(Ref(uri, "", 0).key for uri in uris - shared)

    def datasets(self, specialist: str) -> list[Dataset]:
        table = tables.datasets
        query = select(table).where(table.c.specialist == specialist).order_by(table.c.digest)
        with transaction(self._engine) as connection:
            return [to_stored_dataset(row) for row in connection.execute(query)]

    def dataset(self, specialist: str, digest: str) -> Dataset | None:
        query = select(tables.datasets).filter_by(specialist=specialist, digest=digest)
        with transaction(self._engine) as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else to_stored_dataset(row)

    def source_files(self, specialist: str, segment: int | None) -> list[tuple[str, str]]:
        table = tables.dataset_files.c
        query = select(table.digest, table.key).where(table.specialist == specialist, table.is_sources)
        if segment is not None:
            query = query.where(or_(table.segment == segment, table.segment == ALL_SEGMENTS))
        with transaction(self._engine) as connection:
            return [(digest, key) for digest, key in connection.execute(query.order_by(table.digest, table.key))]

    def specialists(self) -> list[str]:
        with transaction(self._engine) as connection:
            return list(connection.scalars(select(tables.datasets.c.specialist).distinct()))

    def newest_digests(self, specialist: str) -> dict[DatasetKind, str]:
        builds = tables.builds.c
        query = select(builds.kind, builds.digest).where(builds.specialist == specialist, builds.digest != "")
        with transaction(self._engine) as connection:
            return {DatasetKind(kind): digest for kind, digest in connection.execute(query)}

    def unshared_files(self, digests: Sequence[str]) -> list[str]:
        table, segments = tables.dataset_files.c, tables.segments.c
        shared = select(table.key).where(~is_one_of(table.digest, digests))
        stored = select(func.unnest(segments.file_keys))
        conditions = (is_one_of(table.digest, digests), table.key.not_in(shared), table.key.not_in(stored))
        query = select(table.key).where(*conditions).distinct()
        with transaction(self._engine) as connection:
            return sorted(connection.scalars(query))

    def drop_dataset(self, dataset: Dataset) -> None:
        """Also drop the stored answers that name it."""
        key = {"specialist": dataset.specialist, "digest": dataset.digest}
        with transaction(self._engine) as connection:
            for table in (tables.datasets, tables.dataset_files, tables.requests):
                connection.execute(delete(table).filter_by(**key))
            connection.execute(update(tables.builds).filter_by(**key).values(digest="", fingerprint=""))
