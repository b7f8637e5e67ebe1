"""The specialist's filters: languages, lengths, boilerplate, and caps on one source. What is kept is chosen by fixed hashes."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from services.synthetic.domain import Document, Filters, Kind, LeftOut, Row, Text, fingerprint
from services.synthetic.structure import BOLD_LINE, HEADER, HEADING
from tailor.errors import FailedPrecondition, Reason

# A shorter part repeats by chance, or because the house's documents have it: a greeting, a heading, a table's head.
MIN_PART_CHARS = 24
MIN_PART_WORDS = 4
WORD = re.compile(r"[^\W\d_]{2,}")


@dataclass(frozen=True)
class Cleaned:
    """Texts without boilerplate, those of which nothing was left out of them; and the parts that were removed from the others."""

    texts: dict[str, Text]
    emptied: int
    parts: int


def admits(document: Document, text: Text, filters: Filters) -> str:
    """The filter that leaves the document out by its language or length; empty where none does."""
    if filters.languages and document.language not in filters.languages:
        return "language"
    length = len(text.text)
    if length < filters.min_chars or (filters.max_chars and length > filters.max_chars):
        return "length"
    return ""


def admitted(
    documents: Iterable[Document], texts: Mapping[str, Text], filters: Filters
) -> tuple[dict[str, Text], LeftOut]:
    """The texts that languages and lengths admit, and how many they do not."""
    verdicts = {
        one.document_id: admits(one, texts[one.document_id], filters) for one in documents if one.document_id in texts
    }
    counts = Counter(verdicts.values())
    kept = {key: texts[key] for key, verdict in verdicts.items() if not verdict}
    return kept, LeftOut(language=counts["language"], length=counts["length"])


def without_boilerplate(texts: Mapping[str, Text], kinds: Mapping[str, Kind], documents: int) -> Cleaned:
    """The texts without paragraphs and lines that so many of them hold (0: as they are). What a person wrote as an example stays, word
    for word."""
    if not documents:
        return Cleaned(dict(texts), 0, 0)
    written = {key for key in texts if kinds[key] is not Kind.EXAMPLE}
    counts = Counter(part for key in written for part in _parts(texts[key].text))
    repeated = frozenset(part for part, count in counts.items() if count >= documents)
    cleaned: dict[str, Text] = {}
    emptied = removed = 0
    for key, text in texts.items():
        words, found = _strip(text.text, repeated) if key in written else (text.text, 0)
        if found and not _has_words(words):
            emptied += 1
            continue
        cleaned[key] = Text(text.prompt, words)
        removed += found
    return Cleaned(cleaned, emptied, removed)


def within_documents(document_ids: Sequence[str], sources: Mapping[str, str], most: int) -> list[str]:
    """At most so many documents of each source (0: all), in the order given; which ones, a hash of the id says."""
    if not most:
        return list(document_ids)
    taken: Counter[str] = Counter()
    kept = set()
    for key in sorted(document_ids, key=_draw):
        if taken[sources[key]] < most:
            taken[sources[key]] += 1
            kept.add(key)
    return [key for key in document_ids if key in kept]


def within_share(rows: Sequence[Row], sources: Mapping[str, str], percent: int) -> list[Row]:
    """As many of the rows as leave no source more than its share of what is kept (0: all), by id; FailedPrecondition where there are too
    few sources for any share to be so small."""
    counts = Counter(sources[row.document_ids[0]] for row in rows)
    if not percent or not counts:
        return list(rows)
    if len(counts) * percent < 100:
        raise FailedPrecondition(
            Reason.SOURCE_SHARE_UNREACHABLE,
            f"No source may make over {percent} % of the rows: {-(-100 // percent)} sources are needed, and there is {len(counts)}.",
        )
    most = _largest_share(counts.values(), percent)
    taken: Counter[str] = Counter()
    kept = []
    for row in sorted(rows, key=lambda row: (_draw(row.document_ids[0]), row.row_id)):
        source = sources[row.document_ids[0]]
        if taken[source] < most:
            taken[source] += 1
            kept.append(row)
    return sorted(kept, key=lambda row: row.row_id)


def _largest_share(counts: Iterable[int], percent: int) -> int:
    """The most rows of one source that are no more than the percent of all rows then kept."""
    sizes = list(counts)
    most = max(sizes)
    while (allowed := percent * sum(min(size, most) for size in sizes) // 100) < most:
        most = allowed
    return most


def _draw(document_id: str) -> str:
    return fingerprint("source", document_id)


def _parts(text: str) -> set[str]:
    """The paragraphs and lines of a text that could be boilerplate, in a form in which repetitions are equal."""
    lines = text.split("\n")
    whole = {_paragraph(lines[start:end]) for start, end in _paragraphs(lines)}
    return {part for part in whole | {_normal(line) for line in lines if _is_prose(line)} if _is_long(part)}


def _strip(text: str, repeated: frozenset[str]) -> tuple[str, int]:
    """The text without the repeated parts and without headings that are left with nothing under them; and how many parts went."""
    lines = text.split("\n")
    gone: set[int] = set()
    found = 0
    for start, end in _paragraphs(lines):
        if _paragraph(lines[start:end]) in repeated:
            gone.update(range(start, end))
            found += 1
            continue
        hits = [
            number for number in range(start, end) if _is_prose(lines[number]) and _normal(lines[number]) in repeated
        ]
        gone.update(hits)
        found += len(hits)
    if not found:
        return text, 0
    gone |= _bare_headings(lines, gone)
    kept = "\n".join(line for number, line in enumerate(lines) if number not in gone)
    return re.sub(r"\n{3,}", "\n\n", kept).strip(), found


def _bare_headings(lines: Sequence[str], gone: set[int]) -> set[int]:
    """Headings below the title whose text is all gone."""
    headings = [number for number, line in enumerate(lines) if _is_heading(line)]
    bare = set()
    for start, end in zip(headings, [*headings, len(lines)][1:], strict=True):
        under = [number for number in range(start + 1, end) if lines[number].strip()]
        if under and gone.issuperset(under) and not lines[start].startswith("# "):
            bare.add(start)
    return bare


def _paragraphs(lines: Sequence[str]) -> list[tuple[int, int]]:
    """First and last+1 line of every block between blank lines and headings."""
    found: list[tuple[int, int]] = []
    start = -1
    for number, line in enumerate([*lines, ""]):
        if line.strip() and not _is_heading(line):
            start = number if start < 0 else start
        elif start >= 0:
            found.append((start, number))
            start = -1
    return found


def _paragraph(lines: Sequence[str]) -> str:
    """A paragraph as a part; empty where some of it is repeated on purpose."""
    return _normal(" ".join(lines)) if all(map(_is_prose, lines)) else ""


def _has_words(text: str) -> bool:
    """True where anything but headings stands."""
    return any(line.strip() and not _is_heading(line) for line in text.split("\n"))


def _is_heading(line: str) -> bool:
    return bool(HEADING.match(line.rstrip()) or BOLD_LINE.match(line.rstrip()))


def _is_prose(line: str) -> bool:
    """False for what documents repeat on purpose: headings, header lines, table rows."""
    return not (_is_heading(line) or HEADER.match(line.strip()) or line.lstrip().startswith("|"))


def _normal(part: str) -> str:
    return " ".join(part.casefold().split())


def _is_long(part: str) -> bool:
    return len(part) >= MIN_PART_CHARS and len(WORD.findall(part)) >= MIN_PART_WORDS
