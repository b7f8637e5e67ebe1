"""Values and rules of the review: passages, marks, samples, estimates and their limit. Standard library only."""

import bisect
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from services.anonymization.domain import Action, Change, Disagreement
from tailor.errors import FailedPrecondition, InvalidArgument, Reason

# A passage takes a reviewer about 15 seconds: 400 of them, less than two hours.
PASSAGE_CHARS = 400
CONTEXT_CHARS = 200
# A boundary moves forward to the next word, but not further than this.
MAX_SHIFT = 100
# Between the texts of a document (an example's prompt and answer), as in the anonymizer.
SEPARATOR = "\n\n"
MAX_MARKS = 50
MAX_TERM_CHARS = 200
MAX_TERM_WORDS = 12
DEFAULT_SAMPLE = 400
MAX_SAMPLE = 5_000
MIN_PER_STRATUM = 30
# With fewer reviewed passages, a limit counts as not met, unless there are no more.
MIN_REVIEWED = 30
# Disagreements of one document that enter the queue, so that one document cannot fill it.
MAX_DOCUMENT_DISAGREEMENTS = 5
# A combination of quasi-identifiers is rare if fewer documents share it (k-anonymity).
RARE_BELOW = 5
WORD = re.compile(r"\w+")


class PassageKind(StrEnum):
    """Why a passage is in the queue."""

    SAMPLE = "sample"
    DISAGREEMENT = "disagreement"


class StretchKind(StrEnum):
    """Kinds of stretches of a passage."""

    REPLACED = "replaced"
    DISAGREEMENT = "disagreement"


class ResidualBound(StrEnum):
    """What is compared with the limit: the upper end of the interval, or the estimate."""

    UPPER = "upper"
    POINT = "point"


@dataclass(frozen=True)
class ResidualLimit:
    """The largest admitted share, and what is compared with it."""

    max_residual: float
    bound: ResidualBound


@dataclass(frozen=True)
class PassageStretch:
    """A stretch [start, end) of a text."""

    start: int
    end: int
    kind: StretchKind = StretchKind.REPLACED
    entity_type: str = ""


@dataclass(frozen=True)
class PassageMark:
    """A reviewer's mark: a value of a type that was left, or, without a type, a stretch that is not personal."""

    start: int
    end: int
    entity_type: str


@dataclass(frozen=True)
class ReviewedDocument:
    """The newest version of a document, as a review needs it.

    `replaced` are the [start, end) stretches that the barrier replaced; None if they were not read.
    """

    document_id: str
    sequence: int
    source: str
    language: str
    passages: int
    replaced: tuple[tuple[int, int], ...] | None = None
    department: str = ""
    words: int = 0


@dataclass(frozen=True)
class QueuedPassage:
    """A passage in the queue; `passage_id` is empty if it is not in it. `stretches` are disagreements, at their places in the document."""

    passage_id: str
    kind: PassageKind
    document_id: str
    sequence: int
    number: int
    source: str = ""
    language: str = ""
    stretches: tuple[PassageStretch, ...] = ()


@dataclass(frozen=True)
class PassageView:
    """A passage as a reviewer sees it: [start, end) of a text with some context."""

    queued: QueuedPassage
    text: str = field(repr=False)
    start: int = 0
    end: int = 0
    stretches: tuple[PassageStretch, ...] = ()
    replaced_known: bool = True
    entity_types: tuple[str, ...] = ()


@dataclass(frozen=True)
class ReviewTerm:
    """A review's decision about a text, by its keyed hash. Without a type, it is never personal."""

    term_hash: str
    entity_type: str
    words: int


@dataclass(frozen=True)
class Stratum:
    """The passages of one source and language."""

    source: str
    language: str
    passages: int
    drawn: int


@dataclass(frozen=True)
class StratumResult:
    """What was reviewed of a stratum: passages with anything left, with each type left, and the values left by type."""

    stratum: Stratum
    reviewed: int = 0
    left: int = 0
    left_by_type: Mapping[str, int] = field(default_factory=dict)
    values: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class SampleDraw:
    """A sample. `seed` and the documents of that time determine it."""

    sample_id: str
    seed: int
    create_time: datetime
    results: tuple[StratumResult, ...] = ()


@dataclass(frozen=True)
class QueueCounts:
    """Passages that wait, by kind."""

    sample: int = 0
    disagreement: int = 0


@dataclass(frozen=True)
class Combination:
    """Quasi-identifiers of one paragraph by the keyed hash of their values; `number` is the passage in which the first one starts."""

    number: int
    value_hash: str
    entity_types: tuple[str, ...]


@dataclass(frozen=True)
class RareCombination:
    """A combination that only `documents` documents share."""

    document_id: str
    entity_types: tuple[str, ...]
    documents: int
    number: int


def join_parts(parts: Sequence[str]) -> str:
    """The text of a document in which passages are counted."""
    return SEPARATOR.join(parts)


def count_passages(text: str) -> int:
    """The number of passages of a text, at least 1."""
    return max(1, -(-len(text) // PASSAGE_CHARS))


def passage_bounds(text: str, number: int, passages: int) -> tuple[int, int]:
    """The [start, end) of a passage. Passages begin and end between words; together they are the whole text without overlaps."""
    end = len(text) if number >= passages - 1 else _align(text, (number + 1) * PASSAGE_CHARS)
    return _align(text, number * PASSAGE_CHARS), end


def _align(text: str, place: int) -> int:
    """The first place at or after `place` at which a word begins."""
    if place <= 0 or place >= len(text):
        return min(max(place, 0), len(text))
    limit = min(len(text), place + MAX_SHIFT)
    return next((at for at in range(place, limit) if text[at - 1].isspace()), limit)


def passage_at(text: str, place: int, passages: int) -> int:
    """The number of the passage in which a place of the text lies."""
    number = min(place // PASSAGE_CHARS, passages - 1)
    return number - 1 if number > 0 and place < passage_bounds(text, number, passages)[0] else number


def move_offset(changes: Sequence[Change], offset: int) -> int:
    """The place of an offset after the changes, which must be in order and end before it."""
    return offset + sum(
        len(change.replacement) - (change.end - change.start) for change in changes if change.end <= offset
    )


def replaced_stretches(texts: Sequence[str], changes: Sequence[Sequence[Change]]) -> list[PassageStretch]:
    """The stretches of the joined anonymised texts that stand for a value, in order; only coarser values have a type.

    `changes` are those of each text, in order.
    """
    stretches, base = [], 0
    for text, of_text in zip(texts, changes, strict=True):
        growth = 0
        for change in of_text:
            start = base + change.start + growth
            kind = change.entity_type if change.action is Action.GENERALISE else ""
            stretches.append(PassageStretch(start, start + len(change.replacement), entity_type=kind))
            growth += len(change.replacement) - (change.end - change.start)
        base += len(text) + len(SEPARATOR)
    return stretches


def standing_disagreements(
    texts: Sequence[str], changes: Sequence[Sequence[Change]], disagreements: Sequence[Sequence[Disagreement]]
) -> list[PassageStretch]:
    """The disagreements of which nothing was replaced, at their places in the joined anonymised texts.

    `changes` and `disagreements` are those of each text, in order. Without disagreements, the last may be empty.
    """
    standing, base = [], 0
    for text, of_text, doubtful in zip(texts, changes, disagreements or [()] * len(texts), strict=True):
        for item in doubtful:
            if not any(item.start < change.end and change.start < item.end for change in of_text):
                start = base + move_offset(of_text, item.start)
                end = start + item.end - item.start
                standing.append(PassageStretch(start, end, StretchKind.DISAGREEMENT, item.entity_type))
        base += len(text) + len(SEPARATOR)
    return standing


def overlaps(item: PassageStretch, others: Sequence[PassageStretch]) -> bool:
    """True if a stretch overlaps one of the others, which are in order and do not overlap each other."""
    place = bisect.bisect_left(others, item.end, key=lambda other: other.start)
    return place > 0 and others[place - 1].end > item.start


def term_words(value: str) -> list[str]:
    """The words by which a term is found: spelling of several words does not depend on case and punctuation, that of a single one does."""
    words = WORD.findall(unicodedata.normalize("NFKC", value))
    return [word.casefold() for word in words] if len(words) > 1 else words


def check_marks(view: PassageView, marks: Sequence[PassageMark]) -> None:
    """Raises InvalidArgument (INVALID_MARKS) with a violation for every wrong mark; texts are not repeated."""
    violations = {}
    if len(marks) > MAX_MARKS:
        violations["marks"] = f"are over {MAX_MARKS}"
    for place, mark in enumerate(marks[:MAX_MARKS]):
        if problem := _problem(view, mark, marks[:place]):
            violations[f"marks[{place}]"] = problem
    if violations:
        raise InvalidArgument(Reason.INVALID_MARKS, "The marks are invalid.", field_violations=violations)


def _problem(view: PassageView, mark: PassageMark, earlier: Iterable[PassageMark]) -> str:
    replaced = (item for item in view.stretches if item.kind is StretchKind.REPLACED)
    checks = {
        f"must start within the passage, at {view.start} to {view.end - 1}, and end after that": (
            not (view.start <= mark.start < view.end and mark.start < mark.end <= len(view.text))
        ),
        f"must have at most {MAX_TERM_CHARS} characters": mark.end - mark.start > MAX_TERM_CHARS,
        f"must have a type that the policy does not keep here: {', '.join(view.entity_types)}": (
            mark.entity_type not in ("", *view.entity_types)
        ),
        f"must have 1 to {MAX_TERM_WORDS} words": (
            not 0 < len(term_words(view.text[mark.start : mark.end])) <= MAX_TERM_WORDS
        ),
        "is a surrogate or a mask; only what the barrier left can be marked": _overlaps_any(mark, replaced),
        "overlaps another mark": _overlaps_any(mark, earlier),
    }
    return next((problem for problem, is_wrong in checks.items() if is_wrong), "")


def _overlaps_any(mark: PassageMark, others: Iterable[PassageStretch | PassageMark]) -> bool:
    return any(other.start < mark.end and mark.start < other.end for other in others)


def check_sample(size: int, min_per_stratum: int) -> None:
    """Raises InvalidArgument (INVALID_SAMPLE)."""
    violations = {}
    if not 1 <= size <= MAX_SAMPLE:
        violations["size"] = f"must be 1 to {MAX_SAMPLE:,}"
    if not 0 <= min_per_stratum <= MAX_SAMPLE:
        violations["min_per_stratum"] = f"must be 0 to {MAX_SAMPLE:,}"
    if violations:
        raise InvalidArgument(Reason.INVALID_SAMPLE, "The sample's size is invalid.", field_violations=violations)


def nothing_reviewed() -> FailedPrecondition:
    return FailedPrecondition(
        Reason.NOTHING_REVIEWED,
        "No passage of a random sample was reviewed yet. Draw one with `tailor review sample`, then review it at /review.",
    )
