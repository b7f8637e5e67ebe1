"""Near-duplicates by MinHash (Broder 1997, computed by rensa) and locality-sensitive hashing over pairs of words."""

import hashlib
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy
from numpy.typing import NDArray
from rensa import RMinHash

from services.synthetic.corpus import Sketch, TextSketch
from services.synthetic.domain import Document, Kind, Passage, Text
from services.synthetic.filters import text_parts

Hashes = NDArray[numpy.uint64]

WORD = re.compile(r"\w+")
# An edit of a few words leaves the similarity of word pairs above 0.8; unrelated texts of one company stay below 0.15. Longer shingles drop
# faster.
SHINGLE_WORDS = 2
# Shorter passages are alike by chance.
MIN_PASSAGE_WORDS = 20
# Another client's name and figures leave the similarity of a section above this.
PASSAGE_THRESHOLD = 0.6
MAX_CACHED_WORDS = 200_000


@dataclass(frozen=True)
class Bands:
    """Texts are compared if all hashes of one band are equal: similarity s shares a band with probability 1 - (1 - s^hashes)^bands."""

    salt: int
    count: int
    hashes: int

    @property
    def permutations(self) -> int:
        return self.count * self.hashes


# Similarity 0.8 shares a band with probability 0.997, 0.3 with 0.01.
WHOLE = Bands(salt=1, count=20, hashes=6)
# Similarity 0.8 shares a band with probability 0.99, 0.6 with 0.62, 0.15 with 0.001.
PASSAGE = Bands(salt=2, count=12, hashes=5)
# Stored sketches can be compared only if seed and algorithm are the same; bands have the algorithm in their hashes.
SEED = 15
ALGORITHM = RMinHash.ALGORITHM_VERSION


@dataclass
class MinHashSketcher:
    """Sketches texts, whole and by passage. `threshold` is the similarity from which whole texts are near-duplicates. Thread-safe."""

    threshold: float
    passages: Callable[[Document, Text], Sequence[Passage]]
    _words: dict[str, int] = field(default_factory=dict, repr=False)

    def sketch(self, document: Document, text: Text) -> Sketch:
        start = time.process_time()
        # What is nearly the reference of a golden document must not be trained on, with any prompt.
        prompt = "" if document.kind is Kind.TEST else text.prompt or ""
        whole = text_sketch(self._shingles(f"{prompt}\n{text.text}"), WHOLE, self.threshold)
        parts = [self._shingles(passage.text) for passage in self.passages(document, text)]
        alike = [text_sketch(part, PASSAGE, PASSAGE_THRESHOLD) for part in parts if len(part) >= MIN_PASSAGE_WORDS]
        letters = len("".join(text.text.split()))
        hashes = tuple(sorted(text_parts(text.text)))
        seconds = time.process_time() - start
        return Sketch(document, whole, tuple(alike), len(text.text), letters, hashes, seconds)

    def _shingles(self, text: str) -> Hashes:
        """Hashes of the pairs of neighbouring words; of the only word, or of no word, if there is no pair."""
        words = self._hash_words(WORD.findall(text.lower()) or [""])
        if len(words) < SHINGLE_WORDS:
            return words
        return words[:-1] * numpy.uint64(0x9E3779B97F4A7C15) + words[1:]

    def _hash_words(self, words: list[str]) -> Hashes:
        if len(self._words) > MAX_CACHED_WORDS:
            self._words = {}
        known = self._words
        return numpy.array([known.get(word) or known.setdefault(word, hash_word(word)) for word in words], numpy.uint64)


def hash_word(word: str) -> int:
    """A hash of 64 bits that is the same in every process."""
    return int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "little")


def text_sketch(shingles: Hashes, bands: Bands, threshold: float) -> TextSketch:
    """The smallest 32-bit hash of the shingles under each permutation, and the bands."""
    matrix = RMinHash.digest_matrix_from_flat_token_hashes(shingles, [0, len(shingles)], bands.permutations, SEED)
    smallest = numpy.array(matrix.to_rows()[0], "<u4")
    groups = smallest.reshape(bands.count, bands.hashes)
    keys = tuple(_band_key(bands.salt, number, group.tobytes()) for number, group in enumerate(groups))
    return TextSketch(smallest.tobytes(), keys, threshold)


def _band_key(salt: int, number: int, data: bytes) -> int:
    digest = hashlib.blake2b(bytes([salt, ALGORITHM, number]) + data, digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)
