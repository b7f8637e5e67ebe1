"""Imports in PostgreSQL."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Engine, delete, select, update
from sqlalchemy.dialects.postgresql import insert

from services.synthetic.adapters.import_tables import imports
from services.synthetic.imports.domain import DatasetImport, ImportSpec, add_counts
from services.synthetic.imports.ports import Imports
from tailor.sql import transaction
from tailor.storage.ref import Ref


class SqlImports(Imports):
    """Thread-safe."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def find(self, name: str) -> DatasetImport | None:
        with transaction(self._engine) as connection:
            row = connection.execute(select(imports).where(imports.c.name == name)).one_or_none()
        return None if row is None else _to_import(row)

    def find_all(self) -> list[DatasetImport]:
        with transaction(self._engine) as connection:
            return [_to_import(row) for row in connection.execute(select(imports).order_by(imports.c.name))]

    def begin(self, spec: ImportSpec, request_id: str) -> DatasetImport:
        values = {
            "name": spec.name,
            "request_id": request_id,
            "licence": spec.licence,
            "share_percent": spec.share_percent,
            "source": spec.source,
            "specialists": list(spec.specialists),
        }
        with transaction(self._engine) as connection:
            connection.execute(insert(imports).values(values).on_conflict_do_nothing())
            return _to_import(connection.execute(select(imports).where(imports.c.name == spec.name)).one())

    def add_part(self, item: DatasetImport, rows: int, rejected: Mapping[str, int]) -> DatasetImport | None:
        statement = (
            update(imports)
            .where(
                imports.c.name == item.spec.name,
                imports.c.request_id == item.request_id,
                imports.c.parts == item.parts,
                imports.c.file_uri == "",
            )
            .values(parts=item.parts + 1, rows=item.rows + rows, rejected=add_counts(item.rejected, rejected))
            .returning(*imports.c)
        )
        with transaction(self._engine) as connection:
            row = connection.execute(statement).one_or_none()
        return None if row is None else _to_import(row)

    def finish(self, item: DatasetImport, file: Ref) -> DatasetImport:
        values = {"file_uri": file.uri, "file_sha256": file.sha256, "file_size_bytes": file.size_bytes}
        statement = update(imports).where(imports.c.name == item.spec.name).values(values).returning(*imports.c)
        with transaction(self._engine) as connection:
            return _to_import(connection.execute(statement).one())

    def drop(self, name: str) -> None:
        with transaction(self._engine) as connection:
            connection.execute(delete(imports).where(imports.c.name == name))


def _to_import(row: Any) -> DatasetImport:
    return DatasetImport(
        spec=ImportSpec(row.name, row.licence, row.share_percent, row.source, tuple(row.specialists)),
        request_id=row.request_id,
        parts=row.parts,
        rows=row.rows,
        rejected=dict(row.rejected),
        file=Ref(row.file_uri, row.file_sha256, row.file_size_bytes) if row.file_uri else None,
        created_at=row.created_at,
    )
