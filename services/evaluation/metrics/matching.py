"""One-to-one matches of statements: by their figures and words first, then by the judge model for those that are left."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy
from scipy.optimize import linear_sum_assignment

from services.evaluation.metrics.similarity import names_agree, similarity, values_agree, values_of

# Statements with the same figures need fewer words in common than those without any.
ALIKE, ALIKE_WITH_VALUES = 0.6, 0.25
SayTheSame = Callable[[Sequence[str], Sequence[str]], list[tuple[int, int]]]


@dataclass(frozen=True)
class Statements:
    """Expected and written statements of one kind; with `with_names`, their names must agree too."""

    expected: Sequence[str]
    written: Sequence[str]
    language: str = ""
    with_names: bool = False

    def may_match(self, first: int, second: int) -> bool:
        """True if figures, dates and, where they must, names agree."""
        ours, theirs = self.expected[first], self.written[second]
        return values_agree(ours, theirs, self.language) and (
            not self.with_names or names_agree(ours, theirs, self.language)
        )

    def likeness(self, first: int, second: int) -> float:
        """The likeness of the words, if it is enough for a match by itself, else 0."""
        ours, theirs = self.expected[first], self.written[second]
        least = ALIKE_WITH_VALUES if values_of(ours, self.language) else ALIKE
        likeness = similarity(ours, theirs, self.language)
        return likeness if likeness >= least and self.may_match(first, second) else 0.0


def match(statements: Statements, say_the_same: SayTheSame) -> int:
    """The number of matches. `say_the_same` is asked once, and only if statements are left whose figures agree."""
    pairs = _match_words(statements)
    ours = [number for number in range(len(statements.expected)) if number not in {first for first, _ in pairs}]
    theirs = [number for number in range(len(statements.written)) if number not in {second for _, second in pairs}]
    allowed = {(first, second) for first in ours for second in theirs if statements.may_match(first, second)}
    ours = [number for number in ours if any(first == number for first, _ in allowed)]
    theirs = [number for number in theirs if any(second == number for _, second in allowed)]
    if not allowed:
        return len(pairs)
    named = say_the_same(
        [statements.expected[number] for number in ours], [statements.written[number] for number in theirs]
    )
    chosen = [
        (ours[first], theirs[second]) for first, second in named if 0 <= first < len(ours) and 0 <= second < len(theirs)
    ]
    return len(pairs) + _count_once(pair for pair in chosen if pair in allowed)


def _match_words(statements: Statements) -> list[tuple[int, int]]:
    """The pairs with the greatest likeness in all (Kuhn 1955)."""
    if not statements.expected or not statements.written:
        return []
    likeness = numpy.array(
        [
            [statements.likeness(first, second) for second in range(len(statements.written))]
            for first in range(len(statements.expected))
        ]
    )
    firsts, seconds = linear_sum_assignment(likeness, maximize=True)
    pairs = zip(firsts.tolist(), seconds.tolist(), strict=True)
    return [(first, second) for first, second in pairs if likeness[first, second] > 0]


def _count_once(pairs: Iterable[tuple[int, int]]) -> int:
    """The number of pairs, each statement in one at most."""
    firsts: set[int] = set()
    seconds: set[int] = set()
    for first, second in pairs:
        if first not in firsts and second not in seconds:
            firsts.add(first)
            seconds.add(second)
    return len(firsts)
