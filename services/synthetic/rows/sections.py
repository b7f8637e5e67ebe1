"""Reads a document into sections: by the spans that ingestion found, else by its paragraphs."""

import bisect
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from services.synthetic.domain import Document, Range, Text
from services.synthetic.rows.blocks import read_blocks
from services.synthetic.rows.pieces import BlockKind, Reading, TextPiece
from services.synthetic.rows.structure import BOLD_LINE, HEADER, HEADING, has_words, normalize
from services.synthetic.rows.tables import read_cells
from services.synthetic.rows.templates import base_language
from tailor.values import SpanKind

# Paragraphs without headings are merged to sections of about 200 words.
_WORDS, _MOST_WORDS, _WORDS_BEFORE_TITLE = 200, 280, 30
_TITLE_WORDS = 10
_MARKUP = re.compile(r"<[^<>]*>|\]\([^()]*\)|[*_`#>\[\]!]+|\S*://\S*")
NAME_WORDS, NAME_CHARS = 8, 80
MAX_PIECES_BEFORE = 40
_SUBJECTS = frozenset({"subject", "re", "betreff", "objet", "asunto"})
_PARTS = (SpanKind.SECTION, SpanKind.SHEET, SpanKind.SLIDE, SpanKind.ATTACHMENT)


@dataclass(frozen=True)
class Section:
    """A part of a document under one heading. `title` is the block that holds the heading, None if there is none."""

    headings: tuple[str, ...]
    title: TextPiece | None
    body: tuple[TextPiece, ...]

    @property
    def heading(self) -> str:
        """The innermost heading; empty if there is none."""
        return self.headings[-1] if self.headings else ""

    @property
    def pieces(self) -> tuple[TextPiece, ...]:
        """All blocks, that of the heading first."""
        return self.body if self.title is None else (self.title, *self.body)

    @property
    def start(self) -> int:
        """The first character."""
        return self.pieces[0].start

    @property
    def end(self) -> int:
        """The place after the last character."""
        return self.pieces[-1].end


@dataclass(frozen=True)
class SourceText:
    """A document as it is read. `title` is empty if the document does not show one."""

    document: Document
    reading: Reading
    title: str
    sections: tuple[Section, ...]

    @cached_property
    def pieces(self) -> tuple[TextPiece, ...]:
        """All blocks in order."""
        return tuple(piece for section in self.sections for piece in section.pieces)

    @cached_property
    def name(self) -> str:
        """The title, or else the first words."""
        if any(map(str.isalnum, self.title)):
            return normalize(self.title)
        plain = (
            _MARKUP.sub(" ", piece.text) for piece in self.pieces if piece.kind in (BlockKind.PROSE, BlockKind.ITEM)
        )
        opening = next(filter(has_words, plain), _opening(self.pieces[0]) if self.pieces else "")
        return " ".join(opening.split()[:NAME_WORDS])[:NAME_CHARS].rstrip(".,;: ") + " …"

    def before(self, place: int, characters: int) -> str:
        """The last sentences before a place, at most this number of characters."""
        number = bisect.bisect_left(self.pieces, place, key=lambda piece: piece.end)
        earlier = reversed(self.pieces[max(0, number - MAX_PIECES_BEFORE) : number + 1])
        tail = ""
        for sentence in (sentence for piece in earlier for sentence in reversed(piece.sentences)):
            if sentence.end <= place:
                longer = f"{sentence.text} {tail}".rstrip()
                if len(longer) > characters:
                    return tail or longer[len(longer) - characters :].partition(" ")[2]
                tail = longer
        return tail


def _opening(piece: TextPiece) -> str:
    """The first line of a table without its marks, or the text."""
    return ", ".join(read_cells(piece.text.split("\n")[0])) if piece.kind is BlockKind.TABLE else piece.text


def read_source(document: Document, text: Text, skip: Sequence[Range] = ()) -> SourceText:
    """Read a document. Its sections cover everything that is not blank, apart from the ranges to skip."""
    reading = Reading(text.text, base_language(document.language))
    blocks = read_blocks(reading, skip)
    levels = {span.start: span.level or 1 for span in document.spans if span.kind in _PARTS}
    has_headings = any(span.kind is SpanKind.SECTION for span in document.spans)
    if has_headings:
        sections = list(_sections_by_spans(blocks, levels))
    else:
        marked = {block.start: len(match[1]) for block in blocks if (match := _heading_mark(block)) is not None}
        sections = list(_sections_by_spans(blocks, levels | marked)) if marked else list(_merge(blocks, set(levels)))
    return SourceText(document, reading, _title(sections), tuple(sections))


def plain_heading(block: TextPiece) -> str:
    """The text of a heading: without its marks. Empty for a block that is not a heading, or one without a letter or digit."""
    heading = _heading_text(block)
    return heading if any(map(str.isalnum, heading)) else ""


def _heading_text(block: TextPiece) -> str:
    if block.kind is BlockKind.HEADING:
        match = HEADING.match(block.text.strip())
        return match[2].strip("*_ ") if match is not None else block.text
    match = BOLD_LINE.match(block.text) if len(block.lines) == 1 else None
    if match is not None:
        return match[1].strip()
    return block.text if _is_title(block) else ""


def _heading_mark(block: TextPiece) -> re.Match[str] | None:
    return HEADING.match(block.text.strip()) if block.kind is BlockKind.HEADING else None


def _sections_by_spans(blocks: Sequence[TextPiece], levels: dict[int, int]) -> Iterator[Section]:
    """A section from each start of a span to the next; each is under the headings of the levels above."""
    stack: list[tuple[int, str]] = []
    for group in _groups_at(blocks, set(levels)):
        first = group[0]
        level = levels.get(first.start)
        heading = plain_heading(first) if level is not None or first.kind is BlockKind.HEADING else ""
        if level is not None:
            stack = [(other, name) for other, name in stack if other < level]
        if heading:
            stack.append((level or 1, heading))
        names = tuple(name for _, name in stack)
        yield Section(names, first, tuple(group[1:])) if heading else Section(names, None, tuple(group))


def _groups_at(blocks: Iterable[TextPiece], starts: set[int]) -> Iterator[list[TextPiece]]:
    group: list[TextPiece] = []
    for block in blocks:
        if group and block.start in starts:
            yield group
            group = []
        group.append(block)
    if group:
        yield group


def _merge(blocks: Sequence[TextPiece], starts: set[int]) -> Iterator[Section]:
    """Paragraphs merged to about 200 words; a short line that heads a paragraph begins a section."""
    group: list[TextPiece] = []
    count = 0
    for block in _shorten(blocks):
        length = block.words
        begins = block.start in starts or (count >= _WORDS_BEFORE_TITLE and bool(plain_heading(block)))
        if group and (begins or count >= _WORDS or (count + length > _MOST_WORDS and count >= _WORDS // 4)):
            yield _plain_section(group)
            group, count = [], 0
        group.append(block)
        count += length
    if group:
        yield _plain_section(group)


def _plain_section(group: Sequence[TextPiece]) -> Section:
    heading = plain_heading(group[0]) if len(group) > 1 else ""
    return Section((heading,), group[0], tuple(group[1:])) if heading else Section((), None, tuple(group))


def _shorten(blocks: Iterable[TextPiece]) -> Iterator[TextPiece]:
    """Blocks of at most twice 200 words: longer ones in parts."""
    for block in blocks:
        if block.words <= 2 * _WORDS or len(block.halves()) < 2:
            yield block
        else:
            yield from _shorten(block.halves())


def _is_title(block: TextPiece) -> bool:
    """True for a single short line, not an item, that does not end like a sentence or hold a field."""
    text = block.text
    is_short = (
        block.kind is BlockKind.PROSE
        and len(block.lines) == 1
        and len(text) <= 100
        and len(text.split()) <= _TITLE_WORDS
    )
    return is_short and text[-1] not in ".,;!?。！？" and text[0].isupper() and not HEADER.match(text)


def _title(sections: Sequence[Section]) -> str:
    """The heading that stands first, a mail's subject, or else the first heading of the highest level."""
    if not sections or sections[0].title is not None:
        return sections[0].headings[0] if sections else ""
    fields = (HEADER.match(line) for block in sections[0].body for line in block.text.split("\n"))
    subject = next((field[2] for field in fields if field is not None and field[1].lower() in _SUBJECTS), "")
    top = (section.heading for section in sections if section.title is not None and section.title.text.startswith("# "))
    return subject or next(top, "")
