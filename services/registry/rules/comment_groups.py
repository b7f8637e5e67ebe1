"""Groups the recurring wishes in comments of experts. Deterministic: equal comments give equal groups, in any order."""

import hashlib
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from services.registry.domain import Judgement

# The newest comments that are read.
MAX_COMMENTS = 5_000
MAX_EXAMPLES = 3
MIN_COMMENTS = 2
# Cosine similarity from which a remark belongs to a group. Short remarks on one subject have about 0.5, on different ones under 0.2.
SIMILAR = 0.4
# Comparisons of a stem of a remark with a group, after which no further remark is read: the time would grow with their square.
MAX_COMPARISONS = 5_000_000
# Remarks with fewer words say nothing by themselves.
MIN_WORDS = 2
# Words that differ only after these letters count as one, in any language: `sentence` and `sentences`.
STEM_LETTERS = 6
MIN_LETTERS = 3

_WORD = re.compile(r"[^\W\d_]+")
_END = re.compile(r"(?<=[.!?;])\s+|\n+")

Vector = Mapping[str, float]


@dataclass(frozen=True)
class Remark:
    """One sentence of a comment."""

    text: str
    judgement_id: str
    expert_id: str


@dataclass(frozen=True)
class CommentGroup:
    """Remarks that ask for the same. `text` is the most typical one; comments and experts are counted once each.

    Experts without an id count as one if there is no other.
    """

    text: str
    comments: int
    experts: int
    examples: tuple[Remark, ...]


def group_comments(judgements: Sequence[Judgement]) -> list[CommentGroup]:
    """The groups of remarks from at least MIN_COMMENTS judgements: those of the most experts first, then of the most comments."""
    remarks = list(_split(judgements))
    vectors = _weigh([_count_stems(remark.text) for remark in remarks])
    groups = (_describe([(remarks[at], vectors[at]) for at in places]) for places in _cluster(vectors))
    recurring = (group for group in groups if group.comments >= MIN_COMMENTS)
    return sorted(recurring, key=lambda group: (-group.experts, -group.comments, group.text))


def _split(judgements: Sequence[Judgement]) -> Iterable[Remark]:
    """The sentences of the newest comments. Sorted by a hash, so that neither their order of arrival nor their first letters matter."""
    newest = sorted(
        (judgement for judgement in judgements if judgement.comment.strip()),
        key=lambda judgement: (judgement.create_time, judgement.judgement_id),
    )[-MAX_COMMENTS:]
    remarks = {
        Remark(text, judgement.judgement_id, judgement.expert_id)
        for judgement in newest
        for text in map(str.strip, _END.split(judgement.comment))
        if len(_count_stems(text)) >= MIN_WORDS
    }
    return sorted(remarks, key=lambda remark: hashlib.sha256(f"{remark.text}\n{remark.judgement_id}".encode()).digest())


def _count_stems(text: str) -> Counter[str]:
    words = (word for word in _WORD.findall(text.casefold()) if len(word) >= MIN_LETTERS)
    return Counter(word[:STEM_LETTERS] for word in words)


def _weigh(counts: Sequence[Counter[str]]) -> list[Vector]:
    """TF-IDF vectors of length 1 (Salton and Buckley, 1988; the smoothed IDF of scikit-learn)."""
    frequency = Counter(stem for count in counts for stem in count)
    weights = {
        stem: math.log((1 + len(counts)) / (1 + comments_with_it)) + 1 for stem, comments_with_it in frequency.items()
    }
    return [_normalize({stem: number * weights[stem] for stem, number in sorted(count.items())}) for count in counts]


def _normalize(vector: Vector) -> Vector:
    length = _measure_length(vector)
    return {stem: value / length for stem, value in vector.items()} if length else vector


def _measure_length(vector: Vector) -> float:
    return math.sqrt(math.fsum(value * value for value in vector.values()))


def _cluster(vectors: Sequence[Vector]) -> list[list[int]]:
    """Leader clustering (Hartigan, 1975): each remark joins the most similar group, or begins one; then all are assigned again.

    Remarks after MAX_COMPARISONS are left out.
    """
    centroids = _Centroids()
    read = 0
    for vector in vectors:
        if centroids.comparisons >= MAX_COMPARISONS:
            break
        nearest = centroids.find(vector)
        centroids.add(vector, len(centroids) if nearest is None else nearest)
        read += 1
    places: dict[int, list[int]] = defaultdict(list)
    for at, vector in enumerate(vectors[:read]):
        nearest = centroids.find(vector)
        if nearest is not None:
            places[nearest].append(at)
    return [places[group] for group in sorted(places)]


class _Centroids:
    """Sums of the vectors of groups, by stem and group, and their lengths."""

    def __init__(self) -> None:
        self.comparisons = 0
        self._weights: dict[str, dict[int, float]] = defaultdict(dict)
        self._sums: list[dict[str, float]] = []
        self._lengths: list[float] = []

    def __len__(self) -> int:
        return len(self._sums)

    def add(self, vector: Vector, group: int) -> None:
        if group == len(self._sums):
            self._sums.append({})
            self._lengths.append(0.0)
        total = self._sums[group]
        for stem, value in vector.items():
            total[stem] = self._weights[stem][group] = total.get(stem, 0.0) + value
        self._lengths[group] = _measure_length(total)

    def find(self, vector: Vector) -> int | None:
        """The most similar group, the first one of equal ones; None if none is similar enough."""
        products: dict[int, float] = defaultdict(float)
        for stem, value in vector.items():
            weights = self._weights.get(stem, {})
            self.comparisons += len(weights)
            for group, weight in weights.items():
                products[group] += value * weight
        scored = [(product / self._lengths[group], -group) for group, product in products.items()]
        best, group = max(scored, default=(0.0, 0))
        return -group if best >= SIMILAR else None


def _similarity(vector: Vector, total: Vector) -> float:
    return math.fsum(value * total.get(stem, 0.0) for stem, value in vector.items()) / _measure_length(total)


def _describe(members: Sequence[tuple[Remark, Vector]]) -> CommentGroup:
    total: dict[str, float] = defaultdict(float)
    for _, vector in members:
        for stem, value in vector.items():
            total[stem] += value
    typical = sorted(
        members,
        key=lambda member: (
            -_similarity(member[1], total),
            len(member[0].text),
            member[0].text,
            member[0].judgement_id,
        ),
    )
    examples = {remark.judgement_id: remark for remark, _ in reversed(typical)}
    chosen = [remark for remark, _ in typical if examples[remark.judgement_id] is remark]
    experts = {remark.expert_id for remark in chosen}
    return CommentGroup(
        text=typical[0][0].text,
        comments=len(chosen),
        experts=len(experts - {""}) or 1,
        examples=tuple(chosen[:MAX_EXAMPLES]),
    )
