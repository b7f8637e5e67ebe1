"""Applies a specialist's filters: languages, lengths, boilerplate, and limits per source. Fixed hashes choose what stays."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

from services.synthetic.domain import Document, Kind, LeftOut, Row, Text, fingerprint
from services.synthetic.rows.structure import BOLD_LINE, HEADER, HEADING
from tailor.errors import FailedPrecondition, Reason
from tailor.words import Filters

# Shorter parts repeat by chance, or in every document of a company: a greeting, a heading, a table's head.
MIN_PART_CHARS = 24
MIN_PART_WORDS = 4
WORD = re.compile(r"[^\W\d_]{2,}")


@dataclass(frozen=True)
class Cleaned:
    """Texts without boilerplate, the number of texts of which nothing was left, and the number of parts removed from the others."""

    texts: dict[str, Text]
    emptied: int
    parts: int


def rejecting_filter(document: Document, text: Text, filters: Filters) -> str:
    """The filter that removes the document by its language or length; empty if none does."""
    if filters.languages and document.language not in filters.languages:
        return "language"
    length = len(text.text)
    if length < filters.min_chars or (filters.max_chars and length > filters.max_chars):
        return "length"
    return ""


def admit_texts(
    documents: Iterable[Document], texts: Mapping[str, Text], filters: Filters
) -> tuple[dict[str, Text], LeftOut]:
    """The texts that languages and lengths admit, and counts of the others."""
    verdicts = {
        document.document_id: rejecting_filter(document, texts[document.document_id], filters)
        for document in documents
        if document.document_id in texts
    }
    counts = Counter(verdicts.values())
    admitted = {key: texts[key] for key, verdict in verdicts.items() if not verdict}
    return admitted, LeftOut(language=counts["language"], length=counts["length"])


def remove_boilerplate(texts: Mapping[str, Text], kinds: Mapping[str, Kind], documents: int) -> Cleaned:
    """The texts without paragraphs and lines that at least `documents` texts have; unchanged for 0. Examples stay verbatim."""
    if not documents:
        return Cleaned(dict(texts), 0, 0)
    non_examples = {key for key in texts if kinds[key] is not Kind.EXAMPLE}
    counts = Counter(part for key in non_examples for part in _parts(texts[key].text))
    repeated = frozenset(part for part, count in counts.items() if count >= documents)
    cleaned: dict[str, Text] = {}
    emptied = removed = 0
    for key, text in texts.items():
        stripped, count = _strip(text.text, repeated) if key in non_examples else (text.text, 0)
        if count and not _has_words(stripped):
            emptied += 1
            continue
        cleaned[key] = Text(text.prompt, stripped)
        removed += count
    return Cleaned(cleaned, emptied, removed)


def limit_source_documents(document_ids: Sequence[str], sources: Mapping[str, str], limit: int) -> list[str]:
    """At most `limit` documents of each source (0: all), chosen by a hash of their ids, in the given order."""
    if not limit:
        return list(document_ids)
    taken: Counter[str] = Counter()
    chosen = set()
    for key in sorted(document_ids, key=_draw_key):
        if taken[sources[key]] < limit:
            taken[sources[key]] += 1
            chosen.add(key)
    return [key for key in document_ids if key in chosen]


def limit_source_share(rows: Sequence[Row], sources: Mapping[str, str], percent: int) -> list[Row]:
    """The most rows, sorted by id, with which no source exceeds its share of the result (0: all).

    Raises FailedPrecondition (SOURCE_SHARE_UNREACHABLE) if there are too few sources for such a share.
    """
    counts = Counter(sources[row.document_ids[0]] for row in rows)
    if not percent or not counts:
        return list(rows)
    if len(counts) * percent < 100:
        raise FailedPrecondition(
            Reason.SOURCE_SHARE_UNREACHABLE,
            f"No source may have more than {percent} % of the rows. That needs {-(-100 // percent)} sources; there are {len(counts)}.",
        )
    limit = _largest_share(counts.values(), percent)
    taken: Counter[str] = Counter()
    chosen = []
    for row in sorted(rows, key=lambda row: (_draw_key(row.document_ids[0]), row.row_id)):
        source = sources[row.document_ids[0]]
        if taken[source] < limit:
            taken[source] += 1
            chosen.append(row)
    return sorted(chosen, key=lambda row: row.row_id)


def _largest_share(counts: Iterable[int], percent: int) -> int:
    """The largest number of rows per source with which no source exceeds `percent` of the chosen rows."""
    sizes = list(counts)
    most = max(sizes)
    while (allowed := percent * sum(min(size, most) for size in sizes) // 100) < most:
        most = allowed
    return most


def _draw_key(document_id: str) -> str:
    return fingerprint("source", document_id)


def _parts(text: str) -> set[str]:
    """The paragraphs and lines of a text that could be boilerplate, normalised so that repetitions are equal."""
    lines = text.split("\n")
    whole = {_paragraph(lines[start:end]) for start, end in _paragraphs(lines)}
    return {part for part in whole | {_normalise(line) for line in lines if _is_prose(line)} if _is_long(part)}


def _strip(text: str, repeated: frozenset[str]) -> tuple[str, int]:
    """Remove the repeated parts, and headings with nothing left under them. Returns the text and the number of parts removed."""
    lines = text.split("\n")
    removed: set[int] = set()
    count = 0
    for start, end in _paragraphs(lines):
        if _paragraph(lines[start:end]) in repeated:
            removed.update(range(start, end))
            count += 1
            continue
        hits = [
            number for number in range(start, end) if _is_prose(lines[number]) and _normalise(lines[number]) in repeated
        ]
        removed.update(hits)
        count += len(hits)
    if not count:
        return text, 0
    removed |= _bare_headings(lines, removed)
    rest = "\n".join(line for number, line in enumerate(lines) if number not in removed)
    return re.sub(r"\n{3,}", "\n\n", rest).strip(), count


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


def _has_words(text: str) -> bool:
    """True if there is anything but headings."""
    return any(line.strip() and not _is_heading(line) for line in text.split("\n"))


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
