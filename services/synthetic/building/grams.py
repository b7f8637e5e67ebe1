"""13-grams of words: which ones of the held-out answers stand in train, and in how many documents.

A polynomial hash of 64 bits stands for each 13-gram of lower-case words. `overlap.py` checks the result in another way.
"""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy
from numpy.typing import NDArray

from services.synthetic.near_duplicates.minhash import MAX_CACHED_WORDS, hash_word
from services.synthetic.ports import RowTable

Hashes = NDArray[numpy.uint64]
Counts = dict[int, int]

GRAM_WORDS = 13
BASE = numpy.uint64(0x9E3779B97F4A7C15)
FILTER_BITS = 22
WORD = re.compile(r"\w+")
_SHIFT = numpy.uint64(64 - FILTER_BITS)


@dataclass
class GramHasher:
    """Hashes 13-grams of texts. A text with fewer words has none."""

    _words: dict[str, int] = field(default_factory=dict, repr=False)

    def hash(self, text: str) -> Hashes:
        """A hash per 13-gram, in order."""
        words = WORD.findall(text.lower())
        if len(words) < GRAM_WORDS:
            return numpy.empty(0, numpy.uint64)
        hashes, count = self._hash_words(words), len(words) - GRAM_WORDS + 1
        result = numpy.zeros(count, numpy.uint64)
        for offset in range(GRAM_WORDS):
            result = result * BASE + hashes[offset : offset + count]
        return result

    def _hash_words(self, words: list[str]) -> Hashes:
        if len(self._words) > MAX_CACHED_WORDS:
            self._words = {}
        known = self._words
        return numpy.array([known.get(word) or known.setdefault(word, hash_word(word)) for word in words], numpy.uint64)


class GramSet:
    """A set of hashes for fast look-ups in large arrays."""

    def __init__(self, hashes: Hashes) -> None:
        self.hashes = numpy.unique(hashes)
        self._filter = numpy.zeros(1 << FILTER_BITS, dtype=bool)
        self._filter[(self.hashes >> _SHIFT).astype(numpy.int64)] = True

    def __reduce__(self) -> tuple[type["GramSet"], tuple[Hashes]]:
        return GramSet, (self.hashes,)

    def __len__(self) -> int:
        return len(self.hashes)

    @property
    def digest(self) -> str:
        """Changes whenever the set does."""
        return hashlib.sha256(self.hashes.tobytes()).hexdigest()

    def find(self, hashes: Hashes) -> Hashes:
        """Those of the hashes that are in the set, each once."""
        if not len(self.hashes):
            return self.hashes
        likely = hashes[self._filter[(hashes >> _SHIFT).astype(numpy.int64)]]
        places = numpy.minimum(numpy.searchsorted(self.hashes, likely), len(self.hashes) - 1)
        return numpy.unique(likely[self.hashes[places] == likely])


def make_gram_set(answers: Iterable[str]) -> GramSet:
    """The 13-grams of the answers."""
    hasher = GramHasher()
    parts = [hasher.hash(answer) for answer in answers]
    return GramSet(numpy.concatenate(parts) if parts else numpy.empty(0, numpy.uint64))


def count_documents(table: RowTable, grams: GramSet, hasher: GramHasher) -> Counts:
    """The number of documents of the table in whose answers each 13-gram of the set stands. A row without a document counts as one."""
    by_document: dict[str, set[int]] = {}
    for number, (document_ids, answer) in enumerate(table.answers()):
        hits = grams.find(hasher.hash(answer))
        if len(hits):
            by_document.setdefault(document_ids[0] if document_ids else f"row {number}", set()).update(hits.tolist())
    counts: Counts = {}
    for gram_hits in by_document.values():
        for gram in gram_hits:
            counts[gram] = counts.get(gram, 0) + 1
    return counts


def pack_counts(counts: Counts) -> bytes:
    """The counts as bytes, sorted by hash."""
    pairs = sorted(counts.items())
    hashes = numpy.array([gram for gram, _ in pairs], "<u8")
    return hashes.tobytes() + numpy.array([count for _, count in pairs], "<u4").tobytes()


def unpack_counts(data: bytes) -> Counts:
    """The counts of `pack_counts`."""
    size = len(data) // 12
    hashes = numpy.frombuffer(data[: size * 8], "<u8").tolist()
    return dict(zip(hashes, numpy.frombuffer(data[size * 8 :], "<u4").tolist(), strict=True))


def add_counts(total: Counts, more: Counts) -> None:
    """Add counts of other documents to the total."""
    for gram, count in more.items():
        total[gram] = total.get(gram, 0) + count


def shared_rows(table: RowTable, total: Counts, boilerplate_documents: int) -> tuple[list[bool], list[bool]]:
    """For each row, whether its answers share a 13-gram with train, and whether they share only boilerplate.

    A 13-gram in at least `boilerplate_documents` documents of train is boilerplate, and does not count as a share.
    """
    grams = numpy.array([gram for gram, count in total.items() if count < boilerplate_documents], numpy.uint64)
    house = numpy.array([gram for gram, count in total.items() if count >= boilerplate_documents], numpy.uint64)
    sets, hasher = (GramSet(grams), GramSet(house)), GramHasher()
    answer_hashes = [hasher.hash(answer) for _, answer in table.answers()]
    shared, common = ([bool(len(chosen.find(hashes))) for hashes in answer_hashes] for chosen in sets)
    return shared, [is_common and not is_shared for is_common, is_shared in zip(common, shared, strict=True)]
