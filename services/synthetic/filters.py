"""Applies a specialist's filters: languages, lengths, boilerplate, and limits per source. Fixed hashes choose what stays."""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import asdict

from services.synthetic.domain import Document, Range, Text
from services.synthetic.rows.structure import BOLD_LINE, HEADER, HEADING
from tailor.errors import FailedPrecondition, Reason
from tailor.values import Filters

# Shorter parts repeat by chance, or in every document of a company: a greeting, a heading, a table's head.
MIN_PART_CHARS = 24
MIN_PART_WORDS = 4
WORD = re.compile(r"[^\W\d_]{2,}")


def rejecting_filter(document: Document, text: Text, filters: Filters) -> str:
    """The filter that removes the document by its language or length; empty if none does."""
    if filters.languages and document.language not in filters.languages:
        return "language"
    length = len(text.text)
    if length < filters.min_chars or (filters.max_chars and length > filters.max_chars):
        return "length"
    return ""


def text_parts(text: str) -> set[int]:
    """Hashes of the paragraphs and lines of a text that could be boilerplate; repetitions have equal hashes."""
    lines = text.split("\n")
    whole = {_paragraph(lines[start:end]) for start, end in _paragraphs(lines)}
    parts = whole | {_normalise(line) for line in lines if _is_prose(line)}
    return {_hash(part) for part in parts if _is_long(part)}


def boilerplate_ranges(text: str, repeated: AbstractSet[int]) -> tuple[Range, ...]:
    """The ranges of the lines that are repeated parts, and of headings with nothing else under them."""
    if not repeated:
        return ()
    lines = text.split("\n")
    removed = _repeated_lines(lines, repeated)
    removed |= _bare_headings(lines, removed) if removed else set()
    ranges: list[Range] = []
    position = 0
    for number, line in enumerate(lines):
        end = min(len(text), position + len(line) + 1)
        if number in removed:
            is_adjacent = ranges and ranges[-1][1] == position
            ranges[-1:] = [(ranges[-1][0], end)] if is_adjacent else [*ranges[-1:], (position, end)]
        position = end
    return tuple(ranges)


def has_words(text: str, skip: Iterable[Range]) -> bool:
    """True if anything but headings is outside the skipped ranges."""
    for start, end in skip:
        text = text[:start] + re.sub(r"[^\n]", " ", text[start:end]) + text[end:]
    return any(line.strip() and not _is_heading(line) for line in text.split("\n"))


def source_limit(counts: Mapping[str, int], percent: int) -> int | None:
    """The most rows per source with which no source exceeds its share of the rows; None without a limit.

    Raises FailedPrecondition (SOURCE_SHARE_UNREACHABLE) if there are too few sources for such a share.
    """
    if not percent or not counts:
        return None
    if len(counts) * percent < 100:
        raise FailedPrecondition(
            Reason.SOURCE_SHARE_UNREACHABLE,
            f"No source may have more than {percent} % of the rows. That needs {-(-100 // percent)} sources; there are {len(counts)}.",
        )
    return share_limit(counts.values(), percent)


def share_limit(counts: Iterable[int], percent: int) -> int:
    """The largest size with which none exceeds its share of all, if the others are cut to it."""
    sizes = list(counts)
    most = max(sizes)
    while (allowed := percent * sum(min(size, most) for size in sizes) // 100) < most:
        most = allowed
    return most


def _repeated_lines(lines: Sequence[str], repeated: AbstractSet[int]) -> set[int]:
    removed: set[int] = set()
    for start, end in _paragraphs(lines):
        if _is_repeated(_paragraph(lines[start:end]), repeated):
            removed.update(range(start, end))
        else:
            prose = (number for number in range(start, end) if _is_prose(lines[number]))
            removed.update(number for number in prose if _is_repeated(_normalise(lines[number]), repeated))
    return removed


def _is_repeated(part: str, repeated: AbstractSet[int]) -> bool:
    return _is_long(part) and _hash(part) in repeated


def _hash(part: str) -> int:
    """Signed 64 bits, as PostgreSQL stores them."""
    return int.from_bytes(hashlib.blake2b(part.encode(), digest_size=8).digest(), "big", signed=True)


def _bare_headings(lines: Sequence[str], removed: set[int]) -> set[int]:
    """Headings below the title whose whole text was removed."""
    headings = [number for number, line in enumerate(lines) if _is_heading(line)]
    bare = set()
    for start, end in zip(headings, [*headings, len(lines)][1:], strict=True):
        under = [number for number in range(start + 1, end) if lines[number].strip()]
        if under and removed.issuperset(under) and not lines[start].startswith("# "):
            bare.add(start)
    return bare


def _paragraphs(lines: Sequence[str]) -> list[tuple[int, int]]:
    """First line and last line + 1 of every block between blank lines and headings."""
    blocks: list[tuple[int, int]] = []
    start = -1
    for number, line in enumerate([*lines, ""]):
        if line.strip() and not _is_heading(line):
            start = number if start < 0 else start
        elif start >= 0:
            blocks.append((start, number))
            start = -1
    return blocks


def _paragraph(lines: Sequence[str]) -> str:
    """A normalised paragraph; empty if a line of it is repeated on purpose."""
    return _normalise(" ".join(lines)) if all(map(_is_prose, lines)) else ""


def _is_heading(line: str) -> bool:
    return bool(HEADING.match(line.rstrip()) or BOLD_LINE.match(line.rstrip()))


def _is_prose(line: str) -> bool:
    """False for lines that documents repeat on purpose: headings, header lines, table rows."""
    return not (_is_heading(line) or HEADER.match(line.strip()) or line.lstrip().startswith("|"))


def _normalise(part: str) -> str:
    return " ".join(part.casefold().split())


def _is_long(part: str) -> bool:
    return len(part) >= MIN_PART_CHARS and len(WORD.findall(part)) >= MIN_PART_WORDS


def filter_settings(filters: Filters) -> dict[str, object]:
    """The filters as plain values in a fixed order."""
    return {**asdict(filters), "languages": sorted(filters.languages)}
