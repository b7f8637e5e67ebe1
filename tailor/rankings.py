"""The comparisons of each two drafts that a judgement makes. Standard library only."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations


@dataclass(frozen=True)
class DraftPair:
    """Two drafts of a judgement. If one is better, it is the first."""

    first: str
    second: str
    is_decided: bool


def compare_drafts(
    ranking: Sequence[str], places: Sequence[int] = (), equal: Sequence[str] = ()
) -> Iterator[DraftPair]:
    """Each two drafts of a ranking, and each two of those that are equal.

    `places` has the place of each draft of the ranking, which equally good ones share; without places, no two are equally good.
    """
    ranked = list(zip(ranking, places or range(len(ranking)), strict=True))
    for (first, first_place), (second, second_place) in combinations(ranked, 2):
        yield DraftPair(first, second, first_place < second_place)
    for first, second in combinations(equal, 2):
        yield DraftPair(first, second, is_decided=False)


def list_decided_pairs(ranking: Sequence[str], places: Sequence[int] = ()) -> list[tuple[str, str]]:
    """Each two drafts of a ranking of which one is better, that one first."""
    return [(pair.first, pair.second) for pair in compare_drafts(ranking, places) if pair.is_decided]
