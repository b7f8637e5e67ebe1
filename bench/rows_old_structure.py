"""A frozen copy of `services/synthetic/rows/structure.py` at commit 2c6288d, for `bench/rows_old.py` only: title, header lines, sections, sentences."""

import re
from dataclasses import dataclass

HEADING = re.compile(r"^(#{1,6})\s+(.+?)\s*#*$")
BOLD_LINE = re.compile(r"^\*\*([^*]{2,80})\*\*:?$")
HEADER = re.compile(r"^\**([A-Z][A-Za-z-]{1,15})\**:\**\s+(\S.*)$")
HEADER_NAMES = frozenset({"to", "from", "cc", "bcc", "date", "subject", "re", "sent"})
SENTENCE_END = re.compile(
    r"(?<!\b[A-Z]\.)(?<!\b[A-Z][a-z]\.)(?<!\b[A-Z][a-z]{2}\.)(?<=[.!?])[\"”')]*\s+(?=[\"“'(]?[A-Z0-9])"
)
CLAUSE_END = re.compile(r"[;:,]\s+|\s+[-–—]\s+|\s+\(|\)")
LINKING = re.compile(
    r"^(?:and|but|or|nor|so|yet|which|who|that|while|as|for|with|because|though|although|where|when)\s+", re.I
)
CODE = re.compile(r"@|\+\d|\b(?=\w*[A-Za-z])(?=\w*\d)[A-Z0-9-]{3,}\b|\b[A-Z]+-[A-Z0-9-]*\d|\d{7,}")
DAY = re.compile(r"\b\d{1,2} \w{3,9} \d{4}\b")
TITLE_WORDS = 14
HEADING_WORDS = 6
PARAGRAPH_CHARS = 80


@dataclass(frozen=True)
class OldSection:
    """A heading and the text under it, without the heading."""

    heading: str
    text: str


@dataclass(frozen=True)
class Outline:
    """A document's structure. `lead` is the text before the first section; `headers` are lines such as `To: ...`, in order."""

    title: str
    headers: tuple[tuple[str, str], ...]
    lead: str
    sections: tuple[OldSection, ...]
    text: str

    def header(self, name: str) -> str:
        """The value of a header line; empty if there is none."""
        return next((value for key, value in self.headers if key.lower() == name), "")

    @property
    def day(self) -> str:
        """The date of the date line, without weekday and time."""
        date = self.header("date") or self.header("sent")
        match = DAY.search(date)
        return match[0] if match else date


def parse(text: str) -> Outline:
    """Read the structure of a Markdown or plain text."""
    text = text.replace("\r\n", "\n").strip()
    lines = [line.rstrip() for line in text.split("\n")]
    title, lines = _hash_title(lines)
    headers, lines = _headers(lines)
    title = title or next((value for key, value in headers if key.lower() in {"subject", "re"}), "")
    if not title:
        title, lines = _hash_title(lines)
    if not title:
        title, lines = _plain_title(lines)
    lead, sections = _sections(lines)
    return Outline(title, tuple(headers), lead, tuple(sections), text)


def _hash_title(lines: list[str]) -> tuple[str, list[str]]:
    lines = _skip_blank(lines)
    match = HEADING.match(lines[0]) if lines else None
    if match is None or len(match[1]) > 1:
        return "", lines
    return match[2], lines[1:]


def _headers(lines: list[str]) -> tuple[list[tuple[str, str]], list[str]]:
    """Header lines at the very top, at least two; there may be blank lines between them."""
    headers: list[tuple[str, str]] = []
    rest = 0
    for position, line in enumerate(lines):
        match = HEADER.match(line)
        if match is not None and match[1].lower() in HEADER_NAMES:
            headers.append((match[1], match[2]))
            rest = position + 1
        elif line:
            break
    return (headers, lines[rest:]) if len(headers) > 1 else ([], lines)


def _plain_title(lines: list[str]) -> tuple[str, list[str]]:
    """A short first line that does not end like a sentence."""
    lines = _skip_blank(lines)
    first = lines[0].strip("* ") if lines else ""
    if (
        len(lines) > 1
        and first
        and len(first.split()) <= TITLE_WORDS
        and first[-1] not in ".,;:!?"
        and first[0].isupper()
    ):
        return first, lines[1:]
    return "", lines


def _sections(lines: list[str]) -> tuple[str, list[OldSection]]:
    headings = {number: match[2] for number, line in enumerate(lines) if (match := HEADING.match(line))}
    if not headings:
        headings = {number: match[1] for number, line in enumerate(lines) if (match := BOLD_LINE.match(line))}
    if not headings:
        plain = {number: line for number, line in enumerate(lines) if _is_plain_heading(lines, number)}
        headings = plain if len(plain) > 1 else {}
    if not headings:
        return "\n".join(lines).strip(), []
    starts = sorted(headings)
    ends = [*starts[1:], len(lines)]
    sections = [
        OldSection(headings[start], "\n".join(lines[start + 1 : end]).strip())
        for start, end in zip(starts, ends, strict=True)
    ]
    return "\n".join(lines[: starts[0]]).strip(), sections


def _is_plain_heading(lines: list[str], number: int) -> bool:
    """A short line, by itself or at the start of a paragraph, directly followed by a long line of text."""
    line = lines[number]
    if not line or len(line.split()) > HEADING_WORDS or not line[0].isupper() or line[-1] in ".,;:!?":
        return False
    if number and lines[number - 1]:
        return False
    following = next((later for later in lines[number + 1 : number + 3] if later), "")
    return len(following) >= PARAGRAPH_CHARS or (following[:2] in {"- ", "1."} and len(following) > 20)


def _skip_blank(lines: list[str]) -> list[str]:
    first = next((number for number, line in enumerate(lines) if line), len(lines))
    return lines[first:]


def sentences(text: str) -> list[str]:
    """The sentences of a text, without list markers."""
    plain = re.sub(r"^\s*(?:[-*+]|\d+[.)])\s+", "", text, flags=re.M)
    return [part.strip() for line in plain.split("\n") for part in SENTENCE_END.split(line) if part.strip()]


def key_facts(text: str, limit: int) -> list[str]:
    """At most `limit` short clauses with a figure, in order of appearance."""
    facts: list[str] = []
    for sentence in sentences(text):
        for clause in CLAUSE_END.split(sentence):
            fact = LINKING.sub("", clause.strip()).strip(' .!?"“”*_')
            if fact not in facts and _is_fact(fact):
                facts.append(fact)
    return facts[:limit]


def _is_fact(clause: str) -> bool:
    """True for a short clause with a figure that is not an address, code or telephone number."""
    has_figure = any(character.isdigit() for character in clause)
    return has_figure and 4 <= len(clause.split()) <= 14 and not CODE.search(clause)


def lower_first(phrase: str, text: str) -> str:
    """The phrase with a small first letter, unless its first word may be a name: the text must have the word in small letters too."""
    first = phrase.split(" ", 1)[0]
    if first[1:] == first[1:].lower() and re.search(rf"\b{re.escape(first.lower())}\b", text):
        return phrase[:1].lower() + phrase[1:]
    return phrase


def with_article(noun: str) -> str:
    """`a report`, `an engagement report`."""
    return f"{'an' if noun[:1].lower() in 'aeiou' else 'a'} {noun}"
