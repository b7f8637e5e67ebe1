"""What is forgotten of documents and datasets in PostgreSQL."""

from sqlalchemy import Engine, delete, select, update

from services.synthetic.adapters import tables
from services.synthetic.adapters.sql import to_held_dataset
from services.synthetic.domain import Dataset, DatasetKind
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
        return [to_held_dataset(row) for row in rows]

    def specialists(self) -> list[str]:
        """Everyone who has a dataset."""
        with transaction(self._engine) as connection:
            return list(connection.scalars(select(tables.datasets.c.specialist).distinct()))

    def newest_digests(self, specialist: str) -> dict[DatasetKind, str]:
        """The digests of what was built last, by kind."""
        builds = tables.builds.c
        query = select(builds.kind, builds.digest).where(builds.specialist == specialist, builds.digest != "")
        with transaction(self._engine) as connection:
            return {DatasetKind(kind): digest for kind, digest in connection.execute(query)}

    def drop_dataset(self, dataset: Dataset) -> None:
        """Drop a dataset and the answers that named it."""
        named = {"specialist": dataset.specialist, "digest": dataset.digest}
        with transaction(self._engine) as connection:
            for table in (tables.datasets, tables.requests):
                connection.execute(delete(table).filter_by(**named))
            connection.execute(update(tables.builds).filter_by(**named).values(digest="", fingerprint=""))
