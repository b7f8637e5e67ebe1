"""Which values of an edited text passed the barrier before: those that stand word for word in the stored texts that it was made from."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from services.anonymization.domain import Finding
from services.anonymization.recognise.mentions import match_words

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
        """True if the value stands in the text as whole words, with any space between them, and is not known there as another type."""
        key = (entity_type, value)
        if key not in self._known:
            self._known[key] = any(self._admits(entity_type, *place) for place in self._places(value.split()))
        return self._known[key]

    def _places(self, parts: Sequence[str]) -> Iterator[tuple[int, int]]:
        start = self._text.find(parts[0]) if parts else -1
        while start >= 0:
            end = match_words(self._text, start, parts)
            if end is not None:
                yield start, end
            start = self._text.find(parts[0], start + 1)

    def _admits(self, entity_type: str, start: int, end: int) -> bool:
        for finding in islice(self._findings, bisect_right(self._ends, start), None):
            if finding.start >= end:
                break
            if finding.entity_type != entity_type and not NAMES.issuperset((finding.entity_type, entity_type)):
                return False
        return True
