"""Erasing documents and datasets in PostgreSQL."""

from sqlalchemy import Engine, delete, select, update

from services.synthetic.adapters import tables
from services.synthetic.adapters.sql import to_stored_dataset
from services.synthetic.adapters.synthesis_rows import forget_seed
from services.synthetic.domain import Dataset
from services.synthetic.ports import Holdings
from tailor.sql import transaction
from tailor.words import DatasetKind


class SqlHoldings(Holdings):
    """Thread-safe."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def forget_document(self, document_id: str) -> int:
        """The foreign key deletes its sketch too."""
        with transaction(self._engine) as connection:
            forget_seed(connection, document_id)
            connection.execute(delete(tables.clusters).where(tables.clusters.c.document_id == document_id))
            statement = delete(tables.documents).where(tables.documents.c.document_id == document_id)
            return connection.execute(statement).rowcount

    def datasets(self, specialist: str) -> list[Dataset]:
        table = tables.datasets
        query = select(table).order_by(table.c.specialist, table.c.digest)
        if specialist:
            query = query.where(table.c.specialist == specialist)
        with transaction(self._engine) as connection:
            rows = connection.execute(query).all()
        return [to_stored_dataset(row) for row in rows]

    def specialists(self) -> list[str]:
        with transaction(self._engine) as connection:
            return list(connection.scalars(select(tables.datasets.c.specialist).distinct()))

    def newest_digests(self, specialist: str) -> dict[DatasetKind, str]:
        builds = tables.builds.c
        query = select(builds.kind, builds.digest).where(builds.specialist == specialist, builds.digest != "")
        with transaction(self._engine) as connection:
            return {DatasetKind(kind): digest for kind, digest in connection.execute(query)}

    def drop_dataset(self, dataset: Dataset) -> None:
        """Also drop the stored answers that name it."""
        key = {"specialist": dataset.specialist, "digest": dataset.digest}
        with transaction(self._engine) as connection:
            for table in (tables.datasets, tables.requests):
                connection.execute(delete(table).filter_by(**key))
            connection.execute(update(tables.builds).filter_by(**key).values(digest="", fingerprint=""))
