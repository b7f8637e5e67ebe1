"""What is forgotten of documents and datasets in PostgreSQL."""

from sqlalchemy import Engine, delete, select, update

from services.synthetic import wire
from services.synthetic.adapters import tables
from services.synthetic.domain import Dataset, LeftOut
from tailor.api.events.v1 import models_pb2
from tailor.sql import transaction


class SqlHoldings:
    """Satisfies `erasures.Holdings`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def forget_document(self, document_id: str) -> int:
        """Drop all that is kept of a document; its sketch goes with it."""
        with transaction(self._engine) as connection:
            for table in (tables.clusters, tables.lessons):
                connection.execute(delete(table).where(table.c.document_id == document_id))
            gone = delete(tables.documents).where(tables.documents.c.document_id == document_id)
            return connection.execute(gone).rowcount

    def datasets(self, specialist: str) -> list[Dataset]:
        """Every dataset of a specialist, or of all."""
        table = tables.datasets
        query = select(table).order_by(table.c.specialist, table.c.digest)
        if specialist:
            query = query.where(table.c.specialist == specialist)
        with transaction(self._engine) as connection:
            rows = connection.execute(query).all()
        return [
            wire.to_dataset(
                models_pb2.DatasetBuilt.FromString(row.payload), row.near_duplicates, LeftOut(**row.left_out)
            )
            for row in rows
        ]

    def specialists(self) -> list[str]:
        """Everyone who has a dataset."""
        with transaction(self._engine) as connection:
            return list(connection.scalars(select(tables.datasets.c.specialist).distinct()))

    def newest_digest(self, specialist: str) -> str:
        """The digest of what was built last."""
        query = select(tables.builds.c.digest).where(tables.builds.c.specialist == specialist)
        with transaction(self._engine) as connection:
            return connection.scalar(query) or ""

    def drop_dataset(self, dataset: Dataset) -> None:
        """Drop a dataset and the answers that named it."""
        named = {"specialist": dataset.specialist, "digest": dataset.digest}
        with transaction(self._engine) as connection:
            for table in (tables.datasets, tables.requests):
                connection.execute(delete(table).filter_by(**named))
            connection.execute(update(tables.builds).filter_by(**named).values(digest="", fingerprint=""))
