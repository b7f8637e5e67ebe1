"""Near-duplicates by MinHash and locality-sensitive hashing over word shingles."""

from collections.abc import Mapping

from datasketch import MinHash, MinHashLSH

from services.synthetic.structure import words

# Edits of a few words leave pairs of words above the threshold and unrelated texts of one house below 0.15; longer shingles fall faster.
SHINGLE_WORDS = 2
PERMUTATIONS = 128
# Candidates are found generously, then held to the threshold.
CANDIDATE_THRESHOLD = 0.6


class MinHashNearDuplicates:
    """Satisfies `domain.NearDuplicates`."""

    def __init__(self, threshold: float) -> None:
        self._threshold = threshold

    def groups(self, texts: Mapping[str, str]) -> list[frozenset[str]]:
        """Every id in exactly one group, groups in the order of their lowest ids."""
        index = MinHashLSH(threshold=CANDIDATE_THRESHOLD, num_perm=PERMUTATIONS)
        hashes: dict[str, MinHash] = {}
        group_of: dict[str, set[str]] = {}
        for key in sorted(texts):
            mine = minhash(texts[key])
            group = {key}
            for other in sorted(map(str, index.query(mine))):
                if mine.jaccard(hashes[other]) >= self._threshold:
                    group |= group_of[other]
            for member in group:
                group_of[member] = group
            hashes[key] = mine
            index.insert(key, mine)
        return sorted({frozenset(group) for group in group_of.values()}, key=min)


def minhash(text: str) -> MinHash:
    """The MinHash of a text's shingles."""
    found = words(text)
    shingles = {" ".join(found[i : i + SHINGLE_WORDS]) for i in range(max(1, len(found) - SHINGLE_WORDS + 1))}
    made = MinHash(num_perm=PERMUTATIONS)
    made.update_batch([shingle.encode() for shingle in sorted(shingles)])
    return made
