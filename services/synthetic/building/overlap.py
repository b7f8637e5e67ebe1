"""Checks a dataset as it was written: the share of held-out answers with a 13-gram of words in train.

This is deliberately another implementation than `grams.py`, which removed such rows: it reads the stored files, cuts words in its own
way and uses a cyclic hash (Cohen 1997).
"""

import re
import zlib
from collections.abc import Iterable, Sequence

import numpy
from numpy.typing import NDArray

from services.synthetic.ports import RowTable

Hashes = NDArray[numpy.uint64]

WORDS = 13
TURN = 5
BETWEEN = re.compile(r"\W+")
MAX_KNOWN_WORDS = 200_000


class Checker:
    """Hashes texts; remembers the hashes of words."""

    def __init__(self) -> None:
        self._known: dict[str, int] = {}

    def hash_grams(self, text: str) -> Hashes:
        """A hash per 13 neighbouring words; empty for a shorter text."""
        words = [word for word in BETWEEN.split(text.lower()) if word]
        count = len(words) - WORDS + 1
        if count < 1:
            return numpy.empty(0, numpy.uint64)
        values = self._values(words)
        result = numpy.zeros(count, numpy.uint64)
        for number in range(WORDS):
            result ^= _rotate(values[number : number + count], TURN * number % 64)
        return result

    def _values(self, words: Sequence[str]) -> Hashes:
        if len(self._known) > MAX_KNOWN_WORDS:
            self._known = {}
        for word in set(words).difference(self._known):
            data = word.encode()
            self._known[word] = zlib.crc32(data) << 32 | zlib.crc32(data, 15)
        return numpy.array([self._known[word] for word in words], numpy.uint64)


def _rotate(values: Hashes, bits: int) -> Hashes:
    if not bits:
        return values
    return (values << numpy.uint64(bits)) | (values >> numpy.uint64(64 - bits))


def held_out_grams(tables: Iterable[RowTable]) -> Hashes:
    """All 13-grams of held-out answers, sorted."""
    checker = Checker()
    parts = [checker.hash_grams(answer) for table in tables for _, answer in table.answers()]
    return numpy.unique(numpy.concatenate(parts)) if parts else numpy.empty(0, numpy.uint64)


def count_in_train(table: RowTable, wanted: Hashes, checker: Checker) -> dict[int, int]:
    """In how many documents of a train file each of the wanted 13-grams (sorted) stands."""
    seen: set[tuple[str, int]] = set()
    for number, (document_ids, answer) in enumerate(table.answers()):
        name = document_ids[0] if document_ids else f"row {number}"
        seen.update((name, gram) for gram in _common(checker.hash_grams(answer), wanted).tolist())
    counts: dict[int, int] = {}
    for _, gram in seen:
        counts[gram] = counts.get(gram, 0) + 1
    return counts


def _common(hashes: Hashes, wanted: Hashes) -> Hashes:
    if not len(wanted):
        return hashes[:0]
    places = numpy.minimum(numpy.searchsorted(wanted, hashes), len(wanted) - 1)
    return numpy.asarray(hashes[wanted[places] == hashes])


def measure_overlap(tables: Sequence[RowTable], train: dict[int, int], boilerplate_documents: int) -> float:
    """The share of held-out answers with a 13-gram in train that is not boilerplate; 0 without held-out rows."""
    checker = Checker()
    answers = [answer for table in tables for _, answer in table.answers()]
    shared = sum(
        any(0 < train.get(gram, 0) < boilerplate_documents for gram in checker.hash_grams(answer).tolist())
        for answer in answers
    )
    return shared / len(answers) if answers else 0.0
