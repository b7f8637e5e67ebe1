"""Rows of a dataset as token ids, packed whole into micro-batches. Everything that the assistant says is learned, and nothing else."""

import bisect
import heapq
import random
from collections.abc import Sequence
from typing import Any

from services.training.methods import row_files
from services.training.methods.row_files import RowEncoder
from tailor.chat import ChatTokenizer, Encoded, encode
from tailor.errors import InvalidArgument, Reason
from tailor.logging import get_logger

log = get_logger(__name__)

IGNORED = -100  # the label of tokens without a loss


def chat_encoder(tokenizer: ChatTokenizer) -> RowEncoder[Encoded]:
    """Encodes rows with a conversation each."""
    return RowEncoder(row_files.CHATS, lambda row: encode(row["row_id"], row["messages"], tokenizer))


def keep_fitting(rows: Sequence[Encoded], max_length: int) -> list[Encoded]:
    """The rows of at most `max_length` tokens, whole. Raises InvalidArgument (NO_ROWS) if there are none."""
    kept = [row for row in rows if len(row.tokens) <= max_length]
    check_fitting(len(kept), len(rows), max_length)
    return kept


def check_fitting(kept: int, rows: int, max_length: int) -> None:
    """Log the rows that are too long. Raises InvalidArgument (NO_ROWS) if none is left."""
    if not kept:
        raise InvalidArgument(
            Reason.NO_ROWS,
            f"No row has at most {max_length} tokens. Raise batch.max_length, or set rows.max_row_tokens of the specialist "
            "and build the dataset again.",
        )
    if kept < rows:
        log.warning("rows left out: too long", rows=rows - kept, max_length=max_length)


def pack(rows: Sequence[Encoded], capacity: int, seed: int) -> list[list[Encoded]]:
    """Pack whole rows into bins, by best fit decreasing: longest row first, into the fullest bin it fits.

    A bin has at most `capacity` tokens, or one row that is longer.
    """
    places = pack_lengths([row.row_id for row in rows], [len(row.tokens) for row in rows], capacity, seed)
    return [[rows[place] for place in packed] for packed in places]


def pack_lengths(row_ids: Sequence[Any], lengths: Sequence[int], capacity: int, seed: int) -> list[list[int]]:
    """The bins of `pack` as places of rows. Equal rows in another order give equal bins."""
    order = sorted(range(len(lengths)), key=row_ids.__getitem__)
    random.Random(seed).shuffle(order)  # noqa: S311 - an order, not a secret
    bins: list[list[int]] = []
    rooms = _FreeSpace()
    for place in sorted(order, key=lambda place: -lengths[place]):
        number, room = rooms.take(lengths[place]) or (len(bins), capacity)
        if number == len(bins):
            bins.append([])
        bins[number].append(place)
        rooms.add(number, room - lengths[place])
    return bins


class _FreeSpace:
    """Bins by the tokens that still fit into them."""

    def __init__(self) -> None:
        self._sizes: list[int] = []  # sorted, each once
        self._bins: dict[int, list[int]] = {}  # heaps

    def take(self, length: int) -> tuple[int, int] | None:
        """Remove the fullest bin that a row fits, the first one of several, and return it with its room; None if there is none."""
        at = bisect.bisect_left(self._sizes, length)
        if at == len(self._sizes):
            return None
        size = self._sizes[at]
        number = heapq.heappop(self._bins[size])
        if not self._bins[size]:
            del self._bins[size], self._sizes[at]
        return number, size

    def add(self, number: int, room: int) -> None:
        """Add a bin."""
        if room not in self._bins:
            bisect.insort(self._sizes, room)
        heapq.heappush(self._bins.setdefault(room, []), number)


def pad_bins(bins: Sequence[Sequence[Encoded]], multiple: int) -> list[Sequence[Encoded]]:
    """The bins, padded to a multiple with bins of one token that is not learned, so that every step of an epoch is complete."""
    return [*bins, *fill_bins(bins, multiple)]


def fill_bins(bins: Sequence[Sequence[Encoded]], multiple: int) -> list[Sequence[Encoded]]:
    """The bins by which `pad_bins` pads."""
    filler = Encoded("", bins[0][0].tokens[:1], 1)
    return [[filler] for _ in range(-len(bins) % multiple)]


def to_columns(bins: Sequence[Sequence[Encoded]]) -> dict[str, list[list[int]]]:
    """Bins as the columns of trl's padding-free collator: each is a list of (tokens in the bin,) lists, `seq_lengths` of (rows,)."""
    return {
        "input_ids": [[token for row in rows for token in row.tokens] for rows in bins],
        "labels": [[label for row in rows for label in _labels(row)] for rows in bins],
        "seq_lengths": [[len(row.tokens) for row in rows] for rows in bins],
    }


def _labels(row: Encoded) -> list[int]:
    labels = [IGNORED] * row.prompt_length + list(row.tokens[row.prompt_length :])
    for start, end in row.earlier:
        labels[start:end] = row.tokens[start:end]
    return labels
