"""Checks a dataset as it was written: the share of held-out answers with a 13-gram of words in train.

This is deliberately another implementation than `grams.py`, which removed such rows: it reads the stored files, cuts words in its own
way and uses a cyclic hash (Cohen 1997).
"""

import itertools
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy
from numpy.typing import NDArray

from services.synthetic.ports import RowTable

Hashes = NDArray[numpy.uint64]
Owners = NDArray[numpy.int64]

WORDS = 13
TURN = 5
BETWEEN = re.compile(r"\W+")
MAX_KNOWN_WORDS = 200_000
# Answers that are hashed at once. A table over the low bits of the wanted hashes spares most searches.
CHUNK, LOW_BITS = 256, 22


class Checker:
    """Hashes texts; remembers the hashes of words."""

    def __init__(self) -> None:
        self._known: dict[str, int] = {}

    def hash_grams(self, texts: Sequence[str]) -> tuple[Hashes, Owners]:
        """A hash per 13 neighbouring words of a text, and the number of its text."""
        words = [[word for word in BETWEEN.split(text.lower()) if word] for text in texts]
        owners = numpy.repeat(numpy.arange(len(texts)), [len(part) for part in words])
        count = max(0, len(owners) - WORDS + 1)
        values = self._values([word for part in words for word in part])
        result = numpy.zeros(count, numpy.uint64)
        for number in range(WORDS):
            result ^= _rotate(values[number : number + count], TURN * number % 64)
        is_whole = owners[:count] == owners[WORDS - 1 :]
        return result[is_whole], owners[:count][is_whole]

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
    parts = [checker.hash_grams([answer for _, answer in table.answers()])[0] for table in tables]
    return numpy.unique(numpy.concatenate(parts)) if parts else numpy.empty(0, numpy.uint64)


def count_in_train(table: RowTable, wanted: Hashes, checker: Checker) -> dict[int, int]:
    """In how many documents of a train file each of the wanted 13-grams (sorted) stands."""
    is_likely = numpy.zeros(1 << LOW_BITS, numpy.bool_)
    is_likely[_low_bits(wanted)] = True
    seen: set[tuple[str, int]] = set()
    answers = enumerate(table.answers())
    while chunk := list(itertools.islice(answers, CHUNK)):
        names = [ids[0] if ids else f"row {number}" for number, (ids, _) in chunk]
        hashes, owners = checker.hash_grams([answer for _, (_, answer) in chunk])
        likely = is_likely[_low_bits(hashes)]
        hashes, owners = hashes[likely], owners[likely]
        is_common = _is_common(hashes, wanted)
        pairs = zip(owners[is_common].tolist(), hashes[is_common].tolist(), strict=True)
        seen.update((names[owner], gram) for owner, gram in pairs)
    return dict(Counter(gram for _, gram in seen))


def _low_bits(hashes: Hashes) -> Owners:
    return (hashes & numpy.uint64((1 << LOW_BITS) - 1)).astype(numpy.int64)


def _is_common(hashes: Hashes, wanted: Hashes) -> NDArray[numpy.bool_]:
    if not len(wanted):
        return numpy.zeros(len(hashes), numpy.bool_)
    places = numpy.minimum(numpy.searchsorted(wanted, hashes), len(wanted) - 1)
    return numpy.asarray(wanted[places] == hashes)


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
