"""A reader's marks on what the barrier replaces in manuals by other hands: right or wrong, by the words around it.

A manual is not kept here, only the marks: package, file, type, string, `right` or `wrong`, and a digest of the words around the string. A place without
a mark takes that of the same string in the same file if its marks agree; any other is counted as wrong.
"""

import hashlib
import random
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

RIGHT, WRONG = "right", "wrong"
WORDS_AROUND = 4
RESAMPLES = 2_000
WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Replaced:
    """A string that the barrier replaces in a piece of a manual."""

    package: str
    file: str
    entity_type: str
    value: str
    context: str

    @property
    def string(self) -> tuple[str, ...]:
        return self.package, self.file, self.entity_type, self.value


@dataclass(frozen=True)
class PieceCount:
    """A piece of a manual: its words, and how many strings of it are replaced, wrongly, and without a mark."""

    words: int
    replaced: int
    wrong: int
    unmarked: int


class Marks:
    """The committed marks."""

    def __init__(self, marks: Iterable[tuple[Replaced, str]]) -> None:
        self._exact: dict[Replaced, str] = dict(marks)
        self._by_string: dict[tuple[str, ...], set[str]] = defaultdict(set)
        for replaced, mark in self._exact.items():
            self._by_string[replaced.string].add(mark)

    @classmethod
    def read(cls, path: Path) -> "Marks":
        """Read a file of lines with six columns."""
        lines = path.read_text(encoding="utf-8").splitlines()
        return cls(
            (Replaced(package, file, kind, value, context), mark)
            for package, file, kind, value, mark, context in (line.split("\t") for line in lines)
        )

    def mark(self, replaced: Replaced) -> str:
        """`right`, `wrong`, or empty if nobody has read it."""
        if replaced in self._exact:
            return self._exact[replaced]
        marks = self._by_string.get(replaced.string, set())
        return next(iter(marks)) if len(marks) == 1 else ""

    def count(self, words: int, replaced: Sequence[Replaced]) -> PieceCount:
        marks = [self.mark(item) for item in replaced]
        return PieceCount(words, len(marks), sum(mark != RIGHT for mark in marks), marks.count(""))


def context_of(text: str, start: int, end: int) -> str:
    """A digest of the words around a place."""
    before = WORD.findall(text[max(0, start - 200) : start])[-WORDS_AROUND:]
    after = WORD.findall(text[end : end + 200])[:WORDS_AROUND]
    return hashlib.sha256(" ".join([*before, "|", *after]).lower().encode()).hexdigest()[:12]


def per_1000_words(counts: Sequence[PieceCount]) -> float:
    """False alarms per 1,000 words."""
    return 1_000 * sum(count.wrong for count in counts) / max(1, sum(count.words for count in counts))


def interval(counts: Sequence[PieceCount]) -> tuple[float, float]:
    """The 95 % interval by a bootstrap over pieces (Efron, Annals of Statistics 7, 1979): alarms of one piece are alike."""
    chance = random.Random(len(counts))
    draws = sorted(per_1000_words(chance.choices(counts, k=len(counts))) for _ in range(RESAMPLES))
    return draws[RESAMPLES // 40], draws[-1 - RESAMPLES // 40]
