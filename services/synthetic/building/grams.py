"""13-grams of words: which ones of the held-out answers occur in train, and in how many documents.

A polynomial hash of 64 bits stands for each 13-gram of lower-case words.
"""

import hashlib
import itertools
import re
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import TypeVar

import numpy
from numpy.typing import NDArray

from services.synthetic.near_duplicates.minhash import MAX_CACHED_WORDS, hash_word
from services.synthetic.parquet import RowTable

T = TypeVar("T")
Hashes = NDArray[numpy.uint64]
Counts = dict[int, int]

GRAM_WORDS, HASH_BYTES = 13, 8
BASE, BASE_2, BASE_4 = (numpy.uint64(pow(0x9E3779B97F4A7C15, power, 1 << 64)) for power in (1, 2, 4))
FILTER_BITS = 22
# Texts that are hashed at once, and sentences that are remembered: the rows of a document repeat them.
BATCH, MAX_SENTENCES = 256, 5_000
WORD = re.compile(r"\w+")
_SHIFT = numpy.uint64(64 - FILTER_BITS)


class WordHashes(dict[str, int]):
    """Hashes of words, made when they are first asked for."""

    def __missing__(self, word: str) -> int:
        value = self[word] = hash_word(word)
        return value


class SentenceHashes(dict[str, bytes]):
    """The hashes of a sentence's words, 8 bytes each, made when they are first asked for."""

    def __init__(self) -> None:
        super().__init__()
        self._words = WordHashes()

    def __missing__(self, sentence: str) -> bytes:
        if len(self._words) > MAX_CACHED_WORDS:
            self._words.clear()
        words = WORD.findall(sentence.lower())
        value = self[sentence] = array("Q", map(self._words.__getitem__, words)).tobytes()
        return value


@dataclass
class GramHasher:
    """Hashes words and 13-grams of texts. A text with fewer words has no 13-grams."""

    _sentences: SentenceHashes = field(default_factory=SentenceHashes, repr=False)

    def words(self, text: str) -> bytes:
        """A hash of 8 bytes per lower-case word."""
        if len(self._sentences) > MAX_SENTENCES:
            self._sentences.clear()
        # No word has a full stop or the end of a line, so the words of the parts are those of the text.
        return b"".join(map(self._sentences.__getitem__, text.replace("\n", ". ").split(". ")))

    def hash(self, text: str) -> Hashes:
        """A hash per 13-gram, in order."""
        return self.hash_all([text])[0]

    def hash_all(self, texts: Sequence[str]) -> list[Hashes]:
        """The hashes of each text. All are hashed at once, as one text, because numpy is slow with many small arrays."""
        words = list(map(self.words, texts))
        counts = [len(part) // HASH_BYTES for part in words]
        grams = hash_grams(numpy.frombuffer(b"".join(words), "<u8"))
        # Without the 13-grams that reach into the next text.
        return [
            grams[end - count : max(end - count, end - GRAM_WORDS + 1)]
            for end, count in zip(itertools.accumulate(counts), counts, strict=True)
        ]


@cache
def gram_hasher() -> GramHasher:
    """One for the whole process, which has seen most words before. Threads at worst hash a word twice."""
    return GramHasher()


def hash_grams(words: Hashes) -> Hashes:
    """The value of each 13 words as a polynomial in BASE, from those of 1, 2, 4 and 8 words."""
    if len(words) < GRAM_WORDS:
        return numpy.empty(0, numpy.uint64)
    two = words[:-1] * BASE + words[1:]
    four = two[:-2] * BASE_2 + two[2:]
    eight = four[:-4] * BASE_4 + four[4:]
    twelve = eight[:-4] * BASE_4 + four[8:]
    return numpy.asarray(twelve[:-1] * BASE + words[12:])


class GramSet:
    """A set of hashes for fast look-ups in large arrays."""

    def __init__(self, hashes: Hashes) -> None:
        self.hashes = numpy.unique(hashes)

    def __reduce__(self) -> tuple[type["GramSet"], tuple[Hashes]]:
        return GramSet, (self.hashes,)

    @cached_property
    def _filter(self) -> NDArray[numpy.bool_]:
        """By its first bits, whether the set may have a hash. Not needed by workers, which get the set with every segment."""
        bits = numpy.zeros(1 << FILTER_BITS, dtype=bool)
        bits[(self.hashes >> _SHIFT).astype(numpy.int64)] = True
        return bits

    def __len__(self) -> int:
        return len(self.hashes)

    @cached_property
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
    hasher = gram_hasher()
    parts = [hashes for batch in batched(answers) for hashes in hasher.hash_all(batch)]
    return GramSet(numpy.concatenate(parts) if parts else numpy.empty(0, numpy.uint64))


@dataclass(frozen=True)
class GramCounts:
    """13-grams, sorted, and the number of documents in which each stands."""

    hashes: Hashes
    documents: NDArray[numpy.uint64]

    def find(self, wanted: Hashes) -> Counts:
        """The counts of those of the wanted 13-grams that occur in a document."""
        if not len(self.hashes):
            return {}
        places = numpy.minimum(numpy.searchsorted(self.hashes, wanted), len(self.hashes) - 1)
        is_known = self.hashes[places] == wanted
        return dict(zip(wanted[is_known].tolist(), self.documents[places[is_known]].tolist(), strict=True))


def count_grams(documents: Iterable[Sequence[Hashes]]) -> GramCounts:
    """Count documents, each given as the hashes of its texts."""
    parts = [numpy.unique(numpy.concatenate(hashes)) for hashes in documents]
    together = numpy.concatenate(parts) if parts else numpy.empty(0, numpy.uint64)
    hashes, counts = numpy.unique(together, return_counts=True)
    return GramCounts(hashes, counts.astype(numpy.uint64))


def count_documents(table: RowTable, hasher: GramHasher) -> GramCounts:
    """The 13-grams of the table's answers, and the number of its documents that have each. A row without a document counts as one."""
    by_document: dict[str, list[Hashes]] = {}
    number = itertools.count()
    for batch in batched(table.answers()):
        for (document_ids, _), hashes in zip(batch, hasher.hash_all([answer for _, answer in batch]), strict=True):
            name = document_ids[0] if document_ids else f"row {next(number)}"
            by_document.setdefault(name, []).append(hashes)
    return count_grams(by_document.values())


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
    sets, hasher = (GramSet(grams), GramSet(house)), gram_hasher()
    hashed = [hashes for batch in batched(answer for _, answer in table.answers()) for hashes in hasher.hash_all(batch)]
    shared, common = ([bool(len(chosen.find(hashes))) for hashes in hashed] for chosen in sets)
    return shared, [is_common and not is_shared for is_common, is_shared in zip(common, shared, strict=True)]


def measure_overlap(tables: Iterable[RowTable], total: Counts, boilerplate_documents: int) -> float:
    """The share of the rows whose answers share a 13-gram with train that is not boilerplate; 0 without rows."""
    shared = [is_shared for table in tables for is_shared in shared_rows(table, total, boilerplate_documents)[0]]
    return sum(shared) / len(shared) if shared else 0.0
