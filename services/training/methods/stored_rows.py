"""Encoded rows on disk: the token ids of all rows are in one memory-mapped file, and bins of them in another."""

import tempfile
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy
from numpy.typing import NDArray

from services.training.methods import row_files
from services.training.methods.rows import chat_encoder, check_fitting, pack_lengths, to_columns
from tailor.chat import ChatTokenizer, Encoded

# Bins that are written at once.
BATCH_BINS = 64


@dataclass(frozen=True, eq=False)
class EncodedRows(Sequence[Encoded]):
    """Encoded rows of which only lengths and ids are in memory; a row is read when it is asked for.

    `tokens` are the ids of all rows in their order, `starts` where each row begins and the last one ends. `earlier` are the earlier answers
    of all rows, `earlier_starts` likewise. `chosen` are the numbers of the rows that belong to the sequence. `skipped` counts invalid rows
    of the files, which are not among them.
    """

    tokens: NDArray[numpy.int32]  # (tokens of all rows,)
    starts: NDArray[numpy.int64]  # (rows + 1,)
    prompts: NDArray[numpy.int32]  # (rows,)
    earlier: NDArray[numpy.int32]  # (earlier answers of all rows, 2)
    earlier_starts: NDArray[numpy.int64]  # (rows + 1,)
    ids: NDArray[numpy.bytes_]  # (rows,)
    chosen: NDArray[numpy.int64]  # (rows of the sequence,)
    skipped: int = 0

    def __len__(self) -> int:
        return len(self.chosen)

    @overload
    def __getitem__(self, place: int) -> Encoded: ...
    @overload
    def __getitem__(self, place: slice) -> "EncodedRows": ...
    def __getitem__(self, place: int | slice) -> "Encoded | EncodedRows":
        if isinstance(place, slice):
            return self.select(numpy.arange(len(self))[place])
        number = int(self.chosen[place])
        start, end = self.starts[number : number + 2]
        first, last = self.earlier_starts[number : number + 2]
        return Encoded(
            self.ids[number].decode(),
            tuple(self.tokens[start:end].tolist()),
            int(self.prompts[number]),
            tuple((int(begin), int(stop)) for begin, stop in self.earlier[first:last]),
        )

    @property
    def lengths(self) -> NDArray[numpy.int64]:
        """The tokens of each row, (rows,)."""
        return (self.starts[1:] - self.starts[:-1])[self.chosen]

    @property
    def row_ids(self) -> NDArray[numpy.bytes_]:
        """The id of each row, (rows,)."""
        return self.ids[self.chosen]

    @property
    def prompt_lengths(self) -> NDArray[numpy.int32]:
        """The tokens before the last answer of each row, (rows,)."""
        return self.prompts[self.chosen]

    def select(self, places: NDArray[numpy.int64]) -> "EncodedRows":
        """The rows at these places, in the given order."""
        parts = (self.tokens, self.starts, self.prompts, self.earlier, self.earlier_starts, self.ids)
        return EncodedRows(*parts, self.chosen[places], self.skipped)

    def keep_fitting(self, max_length: int) -> "EncodedRows":
        """The rows of at most `max_length` tokens, whole."""
        return self.select(numpy.flatnonzero(self.lengths <= max_length))


@dataclass(frozen=True)
class EncodedBins(Sequence[Sequence[Encoded]]):
    """Bins of stored rows, by the rows' places; a bin's rows are read when it is asked for."""

    rows: EncodedRows
    places: Sequence[Sequence[int]]

    def __len__(self) -> int:
        return len(self.places)

    @overload
    def __getitem__(self, place: int) -> Sequence[Encoded]: ...
    @overload
    def __getitem__(self, place: slice) -> "EncodedBins": ...
    def __getitem__(self, place: int | slice) -> "Sequence[Encoded] | EncodedBins":
        if isinstance(place, slice):
            return EncodedBins(self.rows, self.places[place])
        return [self.rows[at] for at in self.places[place]]


def store_rows(paths: Sequence[Path], tokenizer: ChatTokenizer, folder: Path) -> EncodedRows:
    """Encode the rows of Parquet files into a new file in the folder.

    Raises InvalidArgument (INVALID_DATASET, WRONG_DATASET_KIND, INVALID_ROW).
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = Path(tempfile.mkdtemp(dir=folder, prefix="rows-")) / "tokens.i32"
    starts, prompts, earlier, earlier_starts = array("q", [0]), array("i"), array("i"), array("q", [0])
    ids: list[bytes] = []
    encoder = chat_encoder(tokenizer)
    with path.open("wb") as stream:
        for row in encoder.encode_all(row_files.read(paths, row_files.CHATS)):
            array("i", row.tokens).tofile(stream)
            starts.append(starts[-1] + len(row.tokens))
            prompts.append(row.prompt_length)
            earlier.extend(edge for answer in row.earlier for edge in answer)
            earlier_starts.append(len(earlier) // 2)
            ids.append(row.row_id.encode())
    tokens = numpy.memmap(path, numpy.int32, "r") if starts[-1] else numpy.empty(0, numpy.int32)
    return EncodedRows(
        tokens,
        numpy.array(starts, numpy.int64),
        numpy.array(prompts, numpy.int32),
        numpy.array(earlier, numpy.int32).reshape(-1, 2),
        numpy.array(earlier_starts, numpy.int64),
        numpy.array(ids, numpy.bytes_),
        numpy.arange(len(ids)),
        encoder.skipped,
    )


def pack_stored(rows: EncodedRows, capacity: int, seed: int) -> EncodedBins:
    """`rows.pack` for stored rows."""
    return EncodedBins(rows, pack_lengths(rows.row_ids.tolist(), rows.lengths.tolist(), capacity, seed))


def store_bins(bins: Iterable[Sequence[Encoded]], folder: Path) -> Any:
    """A `datasets.Dataset` of the bins in the columns of `rows.to_columns`, memory-mapped from a new file in the folder."""
    import pyarrow
    from datasets import Dataset

    folder.mkdir(parents=True, exist_ok=True)
    path = Path(tempfile.mkdtemp(dir=folder, prefix="bins-")) / "bins.arrow"
    numbers = pyarrow.list_(pyarrow.int32())
    schema = pyarrow.schema([(name, numbers) for name in ("input_ids", "labels", "seq_lengths")])
    with pyarrow.OSFile(str(path), "wb") as sink, pyarrow.ipc.new_stream(sink, schema) as writer:
        for batch in _batches(bins):
            writer.write_batch(pyarrow.RecordBatch.from_pydict(to_columns(batch), schema=schema))
    return Dataset.from_file(str(path))


def _batches(bins: Iterable[Sequence[Encoded]]) -> Iterator[list[Sequence[Encoded]]]:
    batch: list[Sequence[Encoded]] = []
    for packed in bins:
        batch.append(packed)
        if len(batch) == BATCH_BINS:
            yield batch
            batch = []
    if batch:
        yield batch


def require_fitting(rows: EncodedRows, max_length: int) -> EncodedRows:
    """The rows of at most `max_length` tokens. Raises InvalidArgument (NO_ROWS) if there are none."""
    kept = rows.keep_fitting(max_length)
    check_fitting(len(kept), len(rows), max_length)
    return kept
