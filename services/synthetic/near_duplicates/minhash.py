"""Near-duplicates by MinHash (Broder 1997) and locality-sensitive hashing over pairs of words."""

import hashlib
from collections.abc import Mapping

import numpy
from datasketch import MinHash, MinHashLSH

from services.synthetic.domain import Document, Sketch, SketchPair
from services.synthetic.ports import NearDuplicates, Sketcher
from services.synthetic.rows.structure import words

# An edit of a few words leaves the similarity of word pairs above the threshold; unrelated texts of one company stay below 0.15. Longer
# shingles drop faster.
SHINGLE_WORDS = 2
PERMUTATIONS = 128
# The index finds candidates generously; then they must reach the threshold.
CANDIDATE_THRESHOLD = 0.6
# Texts of similarity 0.8 share one of 20 bands of 6 hashes with probability 0.998, texts of 0.3 with 0.01.
BANDS = 20
BAND_HASHES = 6


class MinHashNearDuplicates(NearDuplicates):
    """Groups texts whose estimated Jaccard similarity reaches the threshold."""

    def __init__(self, threshold: float) -> None:
        self._threshold = threshold

    def groups(self, texts: Mapping[str, str]) -> list[frozenset[str]]:
        """The groups in the order of their lowest ids."""
        index = MinHashLSH(threshold=CANDIDATE_THRESHOLD, num_perm=PERMUTATIONS)
        hashes: dict[str, MinHash] = {}
        group_of: dict[str, set[str]] = {}
        for key in sorted(texts):
            current = minhash(texts[key])
            group = {key}
            for other in sorted(map(str, index.query(current))):
                if current.jaccard(hashes[other]) >= self._threshold:
                    group |= group_of[other]
            for member in group:
                group_of[member] = group
            hashes[key] = current
            index.insert(key, current)
        return sorted({frozenset(group) for group in group_of.values()}, key=min)


class MinHashSketcher(Sketcher):
    """Sketches texts, and compares sketches by the share of equal hashes."""

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold

    def sketch(self, document: Document, text: str) -> Sketch:
        values = minhash(text).hashvalues.astype("<u8")
        bands = tuple(_band(number, values) for number in range(BANDS))
        return Sketch(document.document_id, document.text.sha256, values.tobytes(), bands)

    def is_near_duplicate(self, pair: SketchPair) -> bool:
        first, other = (numpy.frombuffer(data, dtype="<u8") for data in (pair.first_minhash, pair.other_minhash))
        return bool(numpy.mean(first == other) >= self.threshold)


def minhash(text: str) -> MinHash:
    """The MinHash of a text's shingles."""
    text_words = words(text)
    count = max(1, len(text_words) - SHINGLE_WORDS + 1)
    shingles = {" ".join(text_words[start : start + SHINGLE_WORDS]) for start in range(count)}
    result = MinHash(num_perm=PERMUTATIONS)
    result.update_batch([shingle.encode() for shingle in sorted(shingles)])
    return result


def _band(number: int, values: "numpy.typing.NDArray[numpy.uint64]") -> int:
    part = values[number * BAND_HASHES : (number + 1) * BAND_HASHES].tobytes()
    digest = hashlib.blake2b(bytes([number]) + part, digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)
