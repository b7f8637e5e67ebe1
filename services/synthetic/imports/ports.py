"""Interfaces of imports to the world around them. Every method raises Unavailable while the database or store does not answer."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from services.synthetic.domain import Row
from services.synthetic.imports.domain import DatasetImport, ImportFile, ImportSpec
from tailor.storage.ref import Ref


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


class ImportFiles(Protocol):
    """The rows of imports in the datasets bucket."""

    def write_part(self, name: str, number: int, rows: Sequence[Row]) -> None:
        """Store the rows of a chunk. Replaces an earlier attempt."""
        ...

    def part_ids(self, name: str, parts: int) -> set[str]:
        """The `content_id` of the rows in the first `parts` chunks."""
        ...

    def join(self, name: str, parts: int) -> ImportFile:
        """Store the rows of all chunks as one file, sorted by id. Idempotent."""
        ...

    def drop_from_part(self, name: str, number: int, text_ids: Collection[str]) -> None:
        """Store a chunk again without rows. Idempotent."""
        ...

    def drop_from_file(self, name: str, file: Ref, text_ids: Collection[str]) -> ImportFile:
        """Store a file again without rows, as another one. Idempotent."""
        ...

    def keep_only(self, name: str, file: Ref) -> None:
        """Delete everything else of a finished import. Idempotent."""
        ...

    def read(self, file: Ref) -> Iterator[Row]:
        """Stream a file's rows, sorted by id. Raises NotFound if it was replaced."""
        ...

    def delete(self, name: str) -> None:
        """Delete everything of an import. Idempotent."""
        ...
