"""Checks a dataset as it was written: the share of held-out answers with a 13-gram of words in train.

This is deliberately another implementation than `grams.py`, which removed such rows: it reads the stored files, cuts words in its own
way and uses a cyclic hash (Cohen 1997).
"""

import itertools
import re
import zlib
from array import array
from collections.abc import Iterable, Sequence
from functools import cache

import numpy
from numpy.typing import NDArray

from services.synthetic.building.grams import GramCounts, count_grams
from services.synthetic.ports import RowTable

Hashes = NDArray[numpy.uint64]
Owners = NDArray[numpy.int64]

WORDS = 13
TURN = 5
BETWEEN = re.compile(r"\W+")
MAX_KNOWN_WORDS, MAX_KNOWN_LINES = 100_000, 5_000
# Answers that are hashed at once.
CHUNK = 256


class _Values(dict[str, int]):
    """The values of words."""

    def __missing__(self, word: str) -> int:
        data = word.encode()
        value = self[word] = zlib.crc32(data) << 32 | zlib.crc32(data, 15)
        return value


class _Lines(dict[str, bytes]):
    """The values of the words of a line or sentence, 8 bytes each."""

    def __init__(self) -> None:
        super().__init__()
        self._known = _Values()

    def __missing__(self, line: str) -> bytes:
        if len(self._known) > MAX_KNOWN_WORDS:
            self._known.clear()
        words = filter(None, BETWEEN.split(line.lower()))
        value = self[line] = array("Q", map(self._known.__getitem__, words)).tobytes()
        return value


class Checker:
    """Hashes texts; remembers the values of the last lines, which rows repeat."""

    def __init__(self) -> None:
        self._lines = _Lines()

    def hash_grams(self, texts: Sequence[str]) -> tuple[Hashes, Owners]:
        """A hash per 13 neighbouring words of a text, and the number of its text."""
        if len(self._lines) > MAX_KNOWN_LINES:
            self._lines.clear()
        parts = [b"".join(map(self._lines.__getitem__, text.replace(". ", "\n").split("\n"))) for text in texts]
        owners = numpy.repeat(numpy.arange(len(texts)), [len(part) // 8 for part in parts])
        if len(owners) < WORDS:
            return numpy.empty(0, numpy.uint64), owners[:0]
        hashes = _hash(numpy.frombuffer(b"".join(parts), "<u8"))
        is_whole = owners[: len(hashes)] == owners[WORDS - 1 :]
        return hashes[is_whole], owners[: len(hashes)][is_whole]


@cache
def checker() -> Checker:
    """One for the whole process, which has seen most words before."""
    return Checker()


def _hash(values: Hashes) -> Hashes:
    """Each 13 values, the n-th turned by n times TURN bits, from the hashes of 1, 2, 4 and 8."""
    two = values[:-1] ^ _rotate(values[1:], TURN)
    four = two[:-2] ^ _rotate(two[2:], 2 * TURN)
    eight = four[:-4] ^ _rotate(four[4:], 4 * TURN)
    twelve = eight[:-4] ^ _rotate(four[8:], 8 * TURN)
    return numpy.asarray(twelve[:-1] ^ _rotate(values[12:], 12 * TURN))


def _rotate(values: Hashes, bits: int) -> Hashes:
    return (values << numpy.uint64(bits)) | (values >> numpy.uint64(64 - bits))


def held_out_grams(tables: Iterable[RowTable]) -> Hashes:
    """All 13-grams of held-out answers, sorted."""
    checker = Checker()
    parts = [checker.hash_grams([answer for _, answer in table.answers()])[0] for table in tables]
    return numpy.unique(numpy.concatenate(parts)) if parts else numpy.empty(0, numpy.uint64)


def count_in_train(table: RowTable, checker: Checker) -> GramCounts:
    """In how many documents of a train file each of its 13-grams stands."""
    documents: dict[str, list[Hashes]] = {}
    answers = enumerate(table.answers())
    while chunk := list(itertools.islice(answers, CHUNK)):
        hashes, owners = checker.hash_grams([answer for _, (_, answer) in chunk])
        bounds = itertools.pairwise(numpy.searchsorted(owners, numpy.arange(len(chunk) + 1)).tolist())
        for (number, (ids, _)), (start, end) in zip(chunk, bounds, strict=True):
            documents.setdefault(ids[0] if ids else f"row {number}", []).append(hashes[start:end])
    return count_grams(documents.values())


def measure_overlap(tables: Sequence[RowTable], train: dict[int, int], boilerplate_documents: int) -> float:
    """The share of held-out answers with a 13-gram in train that is not boilerplate; 0 without held-out rows."""
    checker = Checker()
    shared = total = 0
    for table in tables:
        answers = [answer for _, answer in table.answers()]
        hashes, owners = checker.hash_grams(answers)
        pairs = zip(hashes.tolist(), owners.tolist(), strict=True)
        shared += len({owner for gram, owner in pairs if 0 < train.get(gram, 0) < boilerplate_documents})
        total += len(answers)
    return shared / total if total else 0.0
