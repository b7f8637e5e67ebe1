"""Rows that no document's structure gives: those of syntheses, and imported ones that are mixed into train."""

import heapq
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy

from services.synthetic.adapters.corpus import SqlCorpus
from services.synthetic.building.grams import GramSet
from services.synthetic.building.segments import ROW_INDEX, Context, MadeRows, WrittenRows, draw, write_rows
from services.synthetic.building.split import HELD_OUT_LIMIT
from services.synthetic.corpus import UNREADABLE
from services.synthetic.domain import Row, Specialist, is_text_id
from services.synthetic.parquet import make_table
from services.synthetic.ports import ExtraRows, Workers
from services.synthetic.rows.document_rows import TEMPLATE
from tailor.datasets import SkippedCount
from tailor.rounds import is_held_out

IMPORT = "import:"
# Rows of one file, on average.
FILE_ROWS = 4096
PAGE = 500
ACROSS_SPLIT = "across_split"
# Of the held-out rows, this part belongs to extra rows if there are as many.
HELD_OUT_PART = 10


@dataclass(frozen=True)
class ExtraParts:
    """The extra rows of a build, which are streamed by id and never all in memory, apart from the held-out ones."""

    held_out: tuple[Row, ...]
    train: int
    train_tokens: int
    draws: tuple[int, ...]
    skipped: dict[str, SkippedCount]


@dataclass(frozen=True)
class Extras:
    """Splits and writes the extra rows of one specialist. `corpus` knows the sides of the documents."""

    sources: Sequence[ExtraRows]
    corpus: SqlCorpus
    context: Context

    @property
    def specialist(self) -> Specialist:
        return self.context.specialist

    def count(self) -> ExtraParts:
        """The held-out rows, the number of train rows, and the draws of the rows that may be mixed in."""
        held_out: list[Row] = []
        train, tokens, across, beyond, unfit = 0, 0, 0, 0, 0
        draws, unreadable = list[int](), list[int]()
        for row, side in self._rows_with_sides(unreadable.append):
            if row.made_by.startswith(IMPORT):
                draws.append(draw(row))
            elif side is None:
                across += 1
            elif not side:
                train += 1
                tokens += row.tokens
            elif not self.context.counter.can_encode(row.chat):
                unfit += 1
            elif len(held_out) < self.specialist.rows.max_held_out_rows:
                held_out.append(row)
            else:
                beyond += 1
        counts = {ACROSS_SPLIT: across, HELD_OUT_LIMIT: beyond, TEMPLATE: unfit, UNREADABLE: sum(unreadable)}
        skipped = {reason: SkippedCount(rows=rows) for reason, rows in counts.items() if rows}
        return ExtraParts(tuple(held_out), train, tokens, tuple(sorted(draws)), skipped)

    def files(
        self,
        parts: ExtraParts,
        replay: int,
        held_out: GramSet,
        workers: Workers,
        on_unfit: Callable[[], None] = lambda: None,
    ) -> Iterator[WrittenRows]:
        """Write the train rows, with as many mixed-in rows as are wanted, in files by the first digits of their ids.

        Calls `on_unfit` for each row that the base's chat template cannot hold, which is left out.
        """
        last = parts.draws[min(replay, len(parts.draws)) - 1] if replay and parts.draws else -1
        train = (row for row, side in self._rows_with_sides() if self._is_train(row, side, last))
        chosen = self._drop_unfit(train, on_unfit)
        for rows in _buckets(chosen, parts.train + min(replay, len(parts.draws))):
            yield write_extra(rows, held_out, workers)()

    def _drop_unfit(self, rows: Iterator[Row], on_unfit: Callable[[], None]) -> Iterator[Row]:
        for row in rows:
            if self.context.counter.can_encode(row.chat):
                yield row
            else:
                on_unfit()

    @staticmethod
    def _is_train(row: Row, side: bool | None, last_draw: int) -> bool:
        return draw(row) <= last_draw if row.made_by.startswith(IMPORT) else side is False

    def _rows_with_sides(
        self, on_unreadable: Callable[[int], None] = lambda rows: None
    ) -> Iterator[tuple[Row, bool | None]]:
        """All extra rows by id, each with its side; None if its documents are on both."""
        streams = [source.rows(self.specialist, on_unreadable) for source in self.sources]
        page: list[Row] = []
        for row in heapq.merge(*streams, key=lambda row: row.row_id):
            page.append(row)
            if len(page) == PAGE:
                yield from self._sides(page)
                page = []
        yield from self._sides(page)

    def _sides(self, rows: Sequence[Row]) -> list[tuple[Row, bool | None]]:
        known = self.corpus.sides(sorted({key for row in rows for key in row.document_ids}))
        percent = self.specialist.rows.held_out_percent
        return [(row, find_side(row, lambda key: known.get(key, is_held_out(key, percent)), percent)) for row in rows]


def find_side(row: Row, side_of: Callable[[str], bool], percent: int) -> bool | None:
    """The side of the row's documents; None if they are on both. Without documents, a hash of the row's seeds decides."""
    sides = {side_of(key) for key in row.document_ids if not is_text_id(key)}
    if len(sides) > 1:
        return None
    return sides.pop() if sides else is_held_out(dict(row.lineage).get("seeds") or row.row_id, percent)


def index_extra(rows: Sequence[Row]) -> MadeRows:
    """Extra rows in the form of a segment's: they belong to no document's text."""
    entries = [(0, draw(row), row.tokens, False, 0) for row in rows]
    return MadeRows((make_table(rows).encode(),), (), numpy.array(entries, ROW_INDEX))


def write_extra(rows: Sequence[Row], held_out: GramSet, workers: Workers) -> Callable[[], WrittenRows]:
    """Write rows as one file."""
    return workers.submit(write_rows, [make_table(rows).encode()], [True] * len(rows), held_out)


def _buckets(rows: Iterator[Row], count: int) -> Iterator[list[Row]]:
    """The rows, sorted by id, in runs with equal first digits: as many digits as give about FILE_ROWS rows each."""
    digits = max(0, -(-(count // FILE_ROWS).bit_length() // 4))
    bucket: list[Row] = []
    prefix = ""
    for row in rows:
        digest = row.row_id.removeprefix("row_")[:digits]
        if bucket and digest != prefix:
            yield bucket
            bucket = []
        prefix = digest
        bucket.append(row)
    if bucket:
        yield bucket
