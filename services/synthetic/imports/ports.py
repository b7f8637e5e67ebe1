"""Interfaces of imports to the world around them. Every method raises Unavailable while the database, store or barrier does not answer."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

from services.synthetic.domain import Row
from services.synthetic.imports.domain import DatasetImport, ImportSpec
from tailor.storage.ref import Ref

# The texts of one row without personal values, anonymised together. Raises InvalidArgument or FailedPrecondition if it refuses them.
AnonymizeTexts = Callable[[Sequence[str]], tuple[str, ...]]


class Imports(Protocol):
    """Imports in the database."""

    def find(self, name: str) -> DatasetImport | None: ...

    def find_all(self) -> list[DatasetImport]:
        """All imports by name."""
        ...

    def begin(self, spec: ImportSpec, request_id: str) -> DatasetImport:
        """Add an import, or return the one that has the name."""
        ...

    def add_part(self, item: DatasetImport, rows: int, rejected: Mapping[str, int]) -> DatasetImport | None:
        """Record the next chunk; None if another call has changed the import since it was read."""
        ...

    def finish(self, item: DatasetImport, file: Ref) -> DatasetImport:
        """Record the file."""
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
        """The ids of the rows in the first `parts` chunks."""
        ...

    def join(self, name: str, parts: int) -> Ref:
        """Store the rows of all chunks as one file, sorted by id. Idempotent."""
        ...

    def drop_parts(self, name: str) -> None:
        """Delete the chunks of a finished import. Idempotent."""
        ...

    def read(self, file: Ref) -> Iterator[Row]:
        """Stream a file's rows, sorted by id."""
        ...

    def delete(self, name: str) -> None:
        """Delete everything of an import. Idempotent."""
        ...
