"""Imported rows as extra rows of the specialists that name them."""

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice

from services.synthetic.domain import Row, RowOrigin, Specialist, fingerprint
from services.synthetic.imports.domain import DatasetImport, is_shared
from services.synthetic.imports.ports import ImportFiles, Imports
from services.synthetic.ports import ExtraRows, TokenCounter, Tokenizers
from tailor.datasets import ImportCount

BATCH_ROWS = 256


@dataclass(frozen=True)
class ImportedRows(ExtraRows):
    """The rows of the finished imports that a specialist names in `rows.replay` and may use."""

    imports: Imports
    files: ImportFiles
    tokenizers: Tokenizers

    def rows(self, specialist: Specialist) -> Iterator[Row]:
        """Stream them, sorted by id, with their tokens by the specialist's base. Raises what `Tokenizers.for_base` raises."""
        items = self.find_imports(specialist)
        if not items:
            return
        counter = self.tokenizers.for_base(specialist.base)
        merged = heapq.merge(*(self._read_shared(item) for item in items), key=lambda row: row.row_id)
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
        imports = [self.imports.find(name) for name in sorted(set(specialist.rows.replay))]
        return tuple(item for item in imports if item and item.file and item.spec.admits(specialist.name))

    def _read_shared(self, item: DatasetImport) -> Iterator[Row]:
        if item.file is not None:
            yield from (row for row in self.files.read(item.file) if is_shared(row.row_id, item.spec.share_percent))


def count_tokens(rows: list[Row], counter: TokenCounter) -> Iterator[Row]:
    """The rows with their tokens, an upper bound for those that the chat template adds included."""
    texts = [[row.system_prompt, *(content for _, content in row.messages)] for row in rows]
    counts = iter(counter.count([text for parts in texts for text in parts]))
    for row, parts in zip(rows, texts, strict=True):
        messages = len(parts) - (not row.system_prompt)
        yield replace(row, tokens=sum(islice(counts, len(parts))) + messages * counter.message_tokens)
