"""Replaced strings: what the barrier replaces in many documents of many departments is hardly a person. Standard library only."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from math import ceil

from services.anonymization.domain import Change

# A string is hardly personal if it is replaced in at least this many documents, and in this share of them: a person is named in a few. Five
# is also the number below which combinations of quasi-identifiers are rare.
MIN_DOCUMENTS = 5
MIN_SHARE = 0.01
# They must belong to at least this many departments, or come from as many sources: two departments often share a customer or a colleague.
MIN_SPREAD = 3
# Or it is one word that is treated as a person this often and that no document has in a full name: people are named in full somewhere,
# products and commands are not. It is listed, and so shown, only if it is in enough documents.
MIN_LONE_TIMES = 5
# A policy cannot allow a longer term.
MAX_SURROGATE_CHARS = 200
MAX_PLACES = 10
CONTEXT_CHARS = 150


class ReplacedDecision(StrEnum):
    """What data protection decided about a replaced string."""

    ALLOWED = "allowed"
    KEPT = "kept"


@dataclass(frozen=True)
class ReplacedString:
    """A string by its type and its surrogate in small letters, with counts over the newest version of every document."""

    entity_type: str
    surrogate: str
    times: int
    documents: int
    departments: int
    sources: int
    decision: ReplacedDecision | None = None
    decided_by: str = ""
    decide_time: datetime | None = None


@dataclass(frozen=True)
class CountedDocuments:
    """The documents whose replacements are counted, and their words."""

    documents: int
    words: int

    @property
    def min_documents(self) -> int:
        """Documents in which a string must be replaced to be listed."""
        return max(MIN_DOCUMENTS, ceil(self.documents * MIN_SHARE))


@dataclass(frozen=True)
class ReplacedPlace:
    """A place [start, end) of a surrogate in a part of an anonymised document."""

    document_id: str
    source: str
    department: str
    text: str = field(repr=False)
    start: int = 0
    end: int = 0


@dataclass(frozen=True)
class RevealedString:
    """A replaced string with its true value."""

    counts: ReplacedString
    value: str = field(repr=False)
    places: tuple[ReplacedPlace, ...] = ()


@dataclass(frozen=True)
class OverRedactionCount:
    """Replacements of listed strings in some documents, and the words of those documents whose replacements are counted."""

    replacements: int = 0
    words: int = 0
    documents: int = 0


def count_surrogates(changes: Iterable[Sequence[Change]]) -> Mapping[tuple[str, str], int]:
    """How often each surrogate occurs in a document, by type and spelling.

    Masks and coarser values stand for many values, and are not counted.
    """
    return Counter(
        (change.entity_type, surrogate)
        for of_text in changes
        for change in of_text
        if change.is_surrogate and len(surrogate := one_line(change.replacement)) <= MAX_SURROGATE_CHARS
    )


def one_line(text: str) -> str:
    """The text without line breaks and repeated spaces."""
    return " ".join(text.split())


def find_surrogate(text: str, surrogate: str, replaced: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """The replaced [start, end) stretches of a text in which a surrogate stands, in any capitals."""
    key = surrogate.lower()
    return [(start, end) for start, end in replaced if one_line(text[start:end]).lower() == key]


def spellings(value: str, surrogates: Iterable[str]) -> tuple[str, ...]:
    """The value in the capitals that it has in the documents: a surrogate has the same as its value.

    The vault has the spelling that it saw first.
    """
    return tuple(dict.fromkeys(_spell(value, surrogate) for surrogate in sorted(surrogates)))


def _spell(value: str, surrogate: str) -> str:
    if surrogate.isupper():
        return value.upper()
    if surrogate.islower():
        return value.lower()
    return value.title() if len(value) > 1 and (value.isupper() or value.islower()) else value


def spread(places: Sequence[Sequence[ReplacedPlace]]) -> tuple[ReplacedPlace, ...]:
    """At most ten of the places of each document: one of every document first, then a second one."""
    longest = max(map(len, places), default=0)
    in_turn = [of_document[number] for number in range(longest) for of_document in places if number < len(of_document)]
    return tuple(in_turn[:MAX_PLACES])
