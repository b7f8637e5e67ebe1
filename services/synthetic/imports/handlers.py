"""Importing rows, and forgetting imports."""

from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from services.synthetic.adapters.imports import SqlImports
from services.synthetic.domain import Row
from services.synthetic.import_domain import (
    DatasetImport,
    ImportResult,
    ImportSpec,
    Messages,
    RowRejection,
    content_id,
    count_rejections,
    find_rejection,
    make_row,
    row_text_id,
    with_file,
)
from services.synthetic.imports.files import ImportFiles
from services.synthetic.ports import AnonymizeRow
from tailor.errors import (
    Aborted,
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    Reason,
    ResourceExhausted,
)
from tailor.logging import get_logger
from tailor.values import Labels

log = get_logger(__name__)

MAX_ROWS = 1_000_000
MAX_IMPORTS = 1_000
# Rows that pass the barrier at a time.
THREADS = 4


@dataclass(frozen=True)
class ImportCommands:
    """Imports rows through the barrier. Thread-safe. `erased` are the ids of everything that is erased."""

    imports: SqlImports
    files: ImportFiles
    anonymize: AnonymizeRow
    erased: Container[str] = frozenset()
    max_rows: int = MAX_ROWS

    def run(self, spec: ImportSpec, request_id: str, chunks: Iterable[Sequence[Messages]]) -> ImportResult:
        """Import the rows of all chunks. Blocks. A repeated request goes on after the last stored chunk.

        Raises AlreadyExists for a name in use, ResourceExhausted (TOO_LARGE) for too many rows, FailedPrecondition (NO_ROWS) if none is
        accepted, Aborted if another call imports the same, Unavailable while the barrier does not answer.
        """
        item = self._begin(spec, request_id)
        if item.file is not None:
            return ImportResult(item, created=False)
        item = self._add_chunks(item, chunks)
        item = self._finish(item) if item.rows else item
        if not item.rows:
            self._drop(item)
            counts = ", ".join(f"{reason} {count}" for reason, count in item.rejected.items())
            raise FailedPrecondition(
                Reason.NO_ROWS, f"No row was accepted. Rejected: {counts or 'none; the file is empty'}."
            )
        log.info("dataset imported", name=spec.name, rows=item.rows)
        return ImportResult(item, created=True)

    def forget(self, name: str) -> DatasetImport:
        """Delete an import with its file. Raises NotFound."""
        item = self.imports.find(name=name)
        if item is None:
            raise unknown_import()
        self._drop(item)
        return item

    def forget_row(self, text_id: str) -> int:
        """Delete the row with this id, and every other erased row of its import; returns their number. Idempotent. Blocks."""
        name = self.imports.find_text(text_id)
        if name is None:
            return 0
        with self.imports.changing(name):
            item = self.imports.find(name=name)
            if item is None:
                return 0
            return drop_rows(self.imports, self.files, item, lambda key: key == text_id or key in self.erased)

    def _finish(self, item: DatasetImport) -> DatasetImport:
        name = item.spec.name
        with self.imports.changing(name):
            drop_rows(self.imports, self.files, item, self.erased.__contains__)
            file = self.files.join(name, item.parts)
            item = with_file(item, file)
            self.imports.finish(item)
            self.files.keep_only(name, file.ref)
        return item

    def _drop(self, item: DatasetImport) -> None:
        with self.imports.changing(item.spec.name):
            # The record goes first: nothing may read a file that is being deleted.
            self.imports.delete(name=item.spec.name)
            self.files.delete(item.spec.name)

    def _begin(self, spec: ImportSpec, request_id: str) -> DatasetImport:
        if not self.imports.has(name=spec.name) and self.imports.count() >= MAX_IMPORTS:
            raise ResourceExhausted(Reason.TOO_LARGE, f"There are {MAX_IMPORTS} imports already. Forget some.")
        item = self.imports.begin(spec, request_id)
        if item.request_id != request_id:
            raise AlreadyExists(
                Reason.ALREADY_EXISTS,
                f"{spec.name} has other bytes. Choose another name, or `tailor dataset forget-import {spec.name}`.",
            )
        if item.spec != spec:
            raise InvalidArgument(
                Reason.REQUEST_ID_REUSED,
                "The same bytes were imported with another licence, share or specialists. Forget that import first.",
            )
        return item

    def _add_chunks(self, item: DatasetImport, chunks: Iterable[Sequence[Messages]]) -> DatasetImport:
        seen = self.files.part_ids(item.spec.name, item.parts)
        stored, total = item.parts, 0
        with ThreadPoolExecutor(THREADS, thread_name_prefix="import") as pool:
            for number, chunk in enumerate(chunks):
                start, total = total, total + len(chunk)
                if total > self.max_rows:
                    raise ResourceExhausted(
                        Reason.TOO_LARGE, f"An import has at most {self.max_rows:,} rows. Import a part of the data."
                    )
                if number >= stored:
                    rows = [(row_text_id(item, at), messages) for at, messages in enumerate(chunk, start)]
                    item = self._add_chunk(item, rows, seen, pool)
        return item

    def _add_chunk(
        self, item: DatasetImport, chunk: Sequence[tuple[str, Messages]], seen: set[str], pool: ThreadPoolExecutor
    ) -> DatasetImport:
        name = item.spec.name
        cleaned = list(pool.map(lambda entry: self._clean(name, *entry), chunk))
        with self.imports.changing(name):
            # A row may have been erased while others passed the barrier.
            outcomes = list(_drop_repeats(map(self._check_erased, cleaned), seen))
            rows = [outcome for outcome in outcomes if isinstance(outcome, Row)]
            rejected = count_rejections([outcome for outcome in outcomes if isinstance(outcome, RowRejection)])
            self.files.write_part(name, item.parts, rows)
            changed = self.imports.add_part(item, rows, rejected)
        if changed is None:
            raise Aborted(Reason.ABORTED, "Another call imports the same rows. Retry when it has ended.")
        return changed

    def _check_erased(self, outcome: Row | RowRejection) -> Row | RowRejection:
        is_erased = isinstance(outcome, Row) and any(key in self.erased for key in outcome.document_ids)
        return RowRejection.ERASED if is_erased else outcome

    def _clean(self, name: str, key: str, messages: Messages) -> Row | RowRejection:
        """The row with anonymised texts. Raises Unavailable while the barrier does not answer."""
        rejection = RowRejection.ERASED if key in self.erased else find_rejection(messages)
        if rejection is not None:
            return rejection
        try:
            clean = self.anonymize(key, [content for _, content in messages], Labels())
        except (InvalidArgument, FailedPrecondition):
            return RowRejection.BARRIER
        chat = tuple((role, text) for (role, _), text in zip(messages, clean.texts, strict=True))
        return find_rejection(chat) or make_row(name, chat, key if clean.surrogates else "")


def drop_rows(imports: SqlImports, files: ImportFiles, item: DatasetImport, is_erased: Callable[[str], bool]) -> int:
    """Delete the erased rows from an import's file, or from its chunks before it is finished. Idempotent. Needs the lock."""
    name = item.spec.name
    erased = {text_id: part for text_id, part in imports.texts(name) if is_erased(text_id)}
    if item.file is None:
        for part in sorted(set(erased.values())):
            files.drop_from_part(name, part, erased)
    elif erased:
        file = files.drop_from_file(name, item.file, erased)
        imports.finish(with_file(item, file))
        files.keep_only(name, file.ref)
    imports.drop_texts(list(erased))
    return len(erased)


def unknown_import() -> NotFound:
    """The same for an import that does not exist and for one that the caller may not see."""
    return NotFound(
        Reason.UNKNOWN_DATASET,
        "There is no import with this name, or your key may not see it. `tailor dataset imports` lists them.",
    )


def _drop_repeats(outcomes: Iterable[Row | RowRejection], seen: set[str]) -> Iterator[Row | RowRejection]:
    for outcome in outcomes:
        if isinstance(outcome, Row):
            content = content_id(outcome)
            if content in seen:
                yield RowRejection.DUPLICATE
                continue
            seen.add(content)
        yield outcome
