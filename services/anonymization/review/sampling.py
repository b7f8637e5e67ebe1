"""Drawing a stratified random sample of passages."""

import bisect
import heapq
import random
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import accumulate

from services.anonymization.review.domain import ReviewedDocument, Stratum

Place = tuple[str, int, int]


@dataclass
class _Frame:
    """The passages of one stratum: documents with their numbers of passages, in the order in which they were read."""

    documents: list[tuple[str, int]] = field(default_factory=list)
    passages: list[int] = field(default_factory=list)

    def draw(self, count: int, generator: random.Random) -> list[Place]:
        """Places (document, sequence, number) of passages, each equally likely, without replacement, in random order."""
        ends = list(accumulate(self.passages))
        places = []
        for place in generator.sample(range(ends[-1]), count):
            index = bisect.bisect_right(ends, place)
            document_id, sequence = self.documents[index]
            places.append((document_id, sequence, place - (ends[index] - self.passages[index])))
        return places


@dataclass(frozen=True)
class DrawnSample:
    """The strata with the numbers drawn, and the passages in the order in which they are reviewed: at any time, a random part is done."""

    strata: tuple[Stratum, ...]
    passages: tuple[tuple[Stratum, Place], ...]
    documents: int


def draw_sample(documents: Iterable[ReviewedDocument], size: int, min_per_stratum: int, seed: int) -> DrawnSample:
    """Draw passages, proportionally to the strata's passages but at least `min_per_stratum` of each where `size` allows.

    The documents must come in a fixed order: the same seed then draws the same passages.
    """
    frames: dict[tuple[str, str], _Frame] = defaultdict(_Frame)
    for document in documents:
        frame = frames[document.source, document.language]
        frame.documents.append((document.document_id, document.sequence))
        frame.passages.append(document.passages)
    sizes = {key: sum(frame.passages) for key, frame in sorted(frames.items())}
    strata, drawn = [], []
    for (source, language), count in allocate(sizes, size, min_per_stratum).items():
        stratum = Stratum(source, language, sizes[source, language], count)
        strata.append(stratum)
        generator = random.Random(f"{seed}/{source}/{language}")  # noqa: S311 - a sample is not a secret
        drawn += [(stratum, place) for place in frames[source, language].draw(count, generator)]
    random.Random(seed).shuffle(drawn)  # noqa: S311 - a sample is not a secret
    return DrawnSample(tuple(strata), tuple(drawn), sum(len(frame.documents) for frame in frames.values()))


def allocate(sizes: dict[tuple[str, str], int], size: int, min_per_stratum: int) -> dict[tuple[str, str], int]:
    """The number to draw of each stratum: first the minimum, then one by one where the fewest are drawn in proportion (Sainte-Lague)."""
    floor = min(min_per_stratum, size // len(sizes)) if sizes else 0
    counts = {key: min(floor, passages) for key, passages in sizes.items()}
    left = min(size, sum(sizes.values())) - sum(counts.values())
    waiting = [(-passages / (2 * counts[key] + 1), key) for key, passages in sizes.items() if counts[key] < passages]
    heapq.heapify(waiting)
    for _ in range(left):
        _, key = heapq.heappop(waiting)
        counts[key] += 1
        if counts[key] < sizes[key]:
            heapq.heappush(waiting, (-sizes[key] / (2 * counts[key] + 1), key))
    return counts
