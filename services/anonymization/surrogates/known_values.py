"""Which values of an edited text passed the barrier before: those that stand word for word in the stored texts that it was made from."""

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence

from services.anonymization.domain import Finding
from services.anonymization.recognise import budget
from services.anonymization.recognise.phrases import is_apart

# Detectors take one of these for another, so they count as one type.
NAMES = frozenset({"PERSON", "CLIENT", "LOCATION"})


class PassedValues:
    """The values of texts that passed before. `findings` are those of the texts, in order and without overlaps."""

    def __init__(self, text: str, findings: Iterable[Finding]) -> None:
        self._text = text
        self._findings = [finding for finding in findings if finding.start < len(text)]
        self._ends = [finding.end for finding in self._findings]
        self._known: dict[tuple[str, str], bool] = {}

    def has(self, entity_type: str, value: str) -> bool:
        """True if the value occurs in the text as whole words, with any space between them, and is not known there as another type.

        Raises DeadlineExceeded (TEXT_TOO_SLOW) once the text's time is spent.
        """
        key = (entity_type, value)
        if key not in self._known:
            budget.check()
            self._known[key] = any(self._admits(entity_type, *place) for place in self._places(value.split()))
        return self._known[key]

    def _places(self, parts: Sequence[str]) -> Iterator[tuple[int, int]]:
        # All words at once: of many values that begin with the same word, each would look at every mention of that word.
        words = re.compile(r"\s+".join(map(re.escape, parts)))
        match = words.search(self._text) if parts else None
        while match is not None:
            budget.check()
            if is_apart(self._text, *match.span()):
                yield match.span()
            match = words.search(self._text, match.start() + 1)

    def _admits(self, entity_type: str, start: int, end: int) -> bool:
        for place in range(bisect_right(self._ends, start), len(self._findings)):
            finding = self._findings[place]
            if finding.start >= end:
                break
            if finding.entity_type != entity_type and not NAMES.issuperset((finding.entity_type, entity_type)):
                return False
        return True
