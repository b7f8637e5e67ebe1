"""Imported rows as extra rows of the specialists that name them."""

import heapq
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass
from itertools import islice

from services.synthetic.adapters.imports import SqlImports
from services.synthetic.domain import Row, RowOrigin, Specialist, fingerprint
from services.synthetic.import_domain import DatasetImport, is_shared
from services.synthetic.imports.files import ImportFiles
from services.synthetic.ports import ExtraRows, Tokenizers
from services.synthetic.rows.budget import count_tokens
from tailor.datasets import ImportCount
from tailor.errors import Aborted, CorruptObject, NotFound, Reason
from tailor.logging import get_logger

log = get_logger(__name__)

BATCH_ROWS = 256


@dataclass(frozen=True)
class ImportedRows(ExtraRows):
    """The rows of the finished imports that a specialist names in `rows.replay` and may use, without erased ones."""

    imports: SqlImports
    files: ImportFiles
    tokenizers: Tokenizers
    erased: Container[str] = frozenset()

    def rows(self, specialist: Specialist, on_unreadable: Callable[[int], None] = lambda rows: None) -> Iterator[Row]:
        """Stream them, sorted by id, with their tokens by the specialist's base. An import whose file is damaged is left out.

        Raises what `Tokenizers.for_base` raises, and Aborted if an import is forgotten or one of its rows erased meanwhile.
        """
        items = self.find_imports(specialist)
        if not items:
            return
        counter = self.tokenizers.for_base(specialist.base)
        merged = heapq.merge(*(self._read_shared(item, on_unreadable) for item in items), key=lambda row: row.row_id)
        while batch := list(islice(merged, BATCH_ROWS)):
            yield from count_tokens(batch, counter)

    def fingerprint(self, specialist: Specialist) -> str:
        """Changes with the imports that the specialist uses, and with their shares."""
        items = self.find_imports(specialist)
        return fingerprint(*((item.spec.name, item.spec.licence, item.spec.share_percent, item.file) for item in items))

    def origin(self, specialist: Specialist) -> RowOrigin:
        """The terms of the imports that the specialist uses."""
        specs = (item.spec for item in self.find_imports(specialist))
        return RowOrigin(tuple(ImportCount(spec.name, spec.licence, spec.share_percent, spec.source) for spec in specs))

    def find_imports(self, specialist: Specialist) -> tuple[DatasetImport, ...]:
        """The finished imports that the specialist names and may use, by name."""
        imports = [self.imports.find(name=name) for name in sorted(set(specialist.rows.replay))]
        return tuple(item for item in imports if item and item.file and item.spec.admits(specialist.name))

    def _read_shared(self, item: DatasetImport, on_unreadable: Callable[[int], None]) -> Iterator[Row]:
        if item.file is None:
            return
        try:
            yield from (row for row in self.files.read(item.file) if self._may_use(row, item))
        except NotFound:
            raise Aborted(Reason.ABORTED, f"The import {item.spec.name} has changed. Retry.") from None
        except CorruptObject as error:
            # Its bytes are verified before the first row.
            log.warning("import left out", name=item.spec.name, uri=item.file.uri, reason=error.reason.value)
            on_unreadable(item.rows)

    def _may_use(self, row: Row, item: DatasetImport) -> bool:
        is_erased = any(key in self.erased for key in row.document_ids)
        return not is_erased and is_shared(row, item.spec.share_percent)
