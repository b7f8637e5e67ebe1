"""Interfaces of imports to the world around them. Every method raises Unavailable while the database does not answer."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from services.synthetic.domain import Row
from services.synthetic.imports.domain import DatasetImport, ImportSpec


class Imports(Protocol):
    """Imports in the database."""

    def find(self, name: str) -> DatasetImport | None: ...

    def find_all(self) -> list[DatasetImport]:
        """All imports by name."""
        ...

    def begin(self, spec: ImportSpec, request_id: str) -> DatasetImport:
        """Add an import, or return the one that has the name."""
        ...

    def changing(self, name: str) -> AbstractContextManager[None]:
        """Hold the import's lock, under which its files change, without a transaction. Raises Aborted if another holds it for long."""
        ...

    def add_part(self, item: DatasetImport, rows: Sequence[Row], rejected: Mapping[str, int]) -> DatasetImport | None:
        """Record the next chunk, and the ids of its rows for erasures; None if another call has changed the import since it was read."""
        ...

    def finish(self, item: DatasetImport) -> DatasetImport:
        """Record the file, and the numbers of accepted and rejected rows. Needs the lock."""
        ...

    def find_text(self, text_id: str) -> str | None:
        """The name of the import that has a row with this id."""
        ...

    def texts(self, name: str) -> Iterator[tuple[str, int]]:
        """Stream the ids of an import's rows, each with the number of its chunk."""
        ...

    def drop_texts(self, text_ids: Sequence[str]) -> None:
        """Drop ids. Idempotent."""
        ...

    def drop(self, name: str) -> None:
        """Drop an import. Idempotent."""
        ...
