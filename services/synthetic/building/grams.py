"""13-grams of words: which ones of the held-out answers stand in train, and in how many documents.

A polynomial hash of 64 bits stands for each 13-gram of lower-case words. `overlap.py` checks the result in another way.
"""

import hashlib
import itertools
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy
from numpy.typing import NDArray

from services.synthetic.near_duplicates.minhash import MAX_CACHED_WORDS, hash_word
from services.synthetic.ports import RowTable

T = TypeVar("T")
Hashes = NDArray[numpy.uint64]
Counts = dict[int, int]

GRAM_WORDS = 13
BASE = numpy.uint64(0x9E3779B97F4A7C15)
FILTER_BITS = 22
# Texts that are hashed at once.
BATCH = 256
WORD = re.compile(r"\w+")
_SHIFT = numpy.uint64(64 - FILTER_BITS)


class WordHashes(dict[str, int]):
    """Hashes of words, made when they are first asked for."""

    def __missing__(self, word: str) -> int:
        value = self[word] = hash_word(word)
        return value


@dataclass
class GramHasher:
    """Hashes 13-grams of texts. A text with fewer words has none."""

    _words: WordHashes = field(default_factory=WordHashes, repr=False)

    def hash(self, text: str) -> Hashes:
        """A hash per 13-gram, in order."""
        return self.hash_all([text])[0]

    def hash_all(self, texts: Sequence[str]) -> list[Hashes]:
        """The hashes of each text. All are hashed at once, as one text, because numpy is slow with many small arrays."""
        words = [WORD.findall(text.lower()) for text in texts]
        ends = list(itertools.accumulate(map(len, words)))
        hashes = self._hash_words(itertools.chain.from_iterable(words), ends[-1] if ends else 0)
        count = max(0, len(hashes) - GRAM_WORDS + 1)
        grams = numpy.zeros(count, numpy.uint64)
        for offset in range(GRAM_WORDS):
            grams = grams * BASE + hashes[offset : offset + count]
        # Without the 13-grams that reach into the next text.
        return [
            grams[end - len(part) : max(end - len(part), end - GRAM_WORDS + 1)]
            for end, part in zip(ends, words, strict=True)
        ]

    def _hash_words(self, words: Iterable[str], count: int) -> Hashes:
        if len(self._words) > MAX_CACHED_WORDS:
            self._words.clear()
        return numpy.fromiter(map(self._words.__getitem__, words), numpy.uint64, count)


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
        likely: Hashes = hashes[self._filter[(hashes >> _SHIFT).astype(numpy.int64)]]
        if not len(likely):
            return likely
        places = numpy.minimum(numpy.searchsorted(self.hashes, likely), len(self.hashes) - 1)
        return numpy.unique(likely[self.hashes[places] == likely])


def make_gram_set(answers: Iterable[str]) -> GramSet:
    """The 13-grams of the answers."""
    hasher = GramHasher()
    parts = [hashes for batch in batched(answers) for hashes in hasher.hash_all(batch)]
    return GramSet(numpy.concatenate(parts) if parts else numpy.empty(0, numpy.uint64))


def count_documents(table: RowTable, grams: GramSet, hasher: GramHasher) -> Counts:
    """The number of documents of the table in whose answers each 13-gram of the set stands. A row without a document counts as one."""
    by_document: dict[str, set[int]] = {}
    number = itertools.count()
    for batch in batched(table.answers()):
        for (document_ids, _), hashes in zip(batch, hasher.hash_all([answer for _, answer in batch]), strict=True):
            name = document_ids[0] if document_ids else f"row {next(number)}"
            hits = grams.find(hashes)
            if len(hits):
                by_document.setdefault(name, set()).update(hits.tolist())
    return dict(Counter(itertools.chain.from_iterable(by_document.values())))


def batched(items: Iterable[T]) -> Iterator[list[T]]:
    """The items in lists of BATCH."""
    iterator = iter(items)
    while batch := list(itertools.islice(iterator, BATCH)):
        yield batch


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
    hashed = [hashes for batch in batched(answer for _, answer in table.answers()) for hashes in hasher.hash_all(batch)]
    shared, common = ([bool(len(chosen.find(hashes))) for hashes in hashed] for chosen in sets)
    return shared, [is_common and not is_shared for is_common, is_shared in zip(common, shared, strict=True)]
