"""Reads a text into blocks: headings, paragraphs (also those with hard line breaks), items, tables and code."""

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from services.synthetic.domain import Range
from services.synthetic.rows.pieces import BlockKind, Line, Reading, TextPiece
from services.synthetic.rows.ranges import subtract_ranges
from services.synthetic.rows.sentences import ends_in_abbreviation
from services.synthetic.rows.structure import HEADER, HEADING

_FILE_LINE = re.compile(r"[^\n]+")
_ITEM = re.compile(r"\s*(?:[-*+•◦▪‣·–]|\(?\d{1,3}[.)]|\(?[a-z]\))\s+\S")
_REFERENCE = re.compile(r"\[[^\]]+\]:? ")
_FENCE = re.compile(r"\s*(?:```|~~~)")
# A line of this share of the widest line's length is broken by the margin, not by its writer.
_FULL_LINE, _MIN_WIDTH, _LONG_LINE, _SPARE = 0.72, 40, 160, 3
_SENTENCE_END = (".", "!", "?", ":", "。", "！", "？")


@dataclass(frozen=True)
class _FileLine:
    start: int
    end: int
    text: str
    kind: BlockKind


def read_blocks(reading: Reading, skip: Sequence[Range] = ()) -> list[TextPiece]:
    """The blocks of a text in order, without the ranges to skip. Everything else that is not blank is in exactly one block."""
    blocks: list[TextPiece] = []
    for group in _groups(_file_lines(reading.text)):
        for kind, lines in _paragraphs(group, reading.language):
            if lines := _without(lines, skip):
                blocks.append(TextPiece(reading, kind, lines[0].start, tuple(lines)))
    return blocks


def _file_lines(text: str) -> Iterator[_FileLine | None]:
    """The lines with their kind; None for a blank line."""
    is_code, last_end = False, 0
    for match in _FILE_LINE.finditer(text):
        if match.start() > last_end + 1:
            yield None
        last_end = match.end()
        line = match[0]
        content = line.strip()
        if not content:
            yield None
            continue
        is_fence = _FENCE.match(line) is not None
        kind = BlockKind.CODE if is_code or is_fence else _kind(line, content)
        is_code ^= is_fence
        start = match.start() if kind is BlockKind.CODE else match.start() + len(line) - len(line.lstrip())
        yield _FileLine(start, match.start() + len(line.rstrip()), content, kind)


def _kind(line: str, content: str) -> BlockKind:
    if HEADING.match(content) and line[0] == "#":
        return BlockKind.HEADING
    if content[0] == "|":
        return BlockKind.TABLE
    if content[0] == ">":
        return BlockKind.CODE
    return BlockKind.ITEM if _ITEM.match(line) else BlockKind.PROSE


def _groups(lines: Iterable[_FileLine | None]) -> Iterator[list[_FileLine]]:
    """Neighbouring lines of one block or of several paragraphs: ended by blank lines, headings, items and other kinds."""
    group: list[_FileLine] = []
    for line in lines:
        if group and (line is None or not _belongs(group[-1], line, group[0].kind)):
            yield group
            group = []
        if line is not None:
            group.append(line)
    if group:
        yield group


def _belongs(before: _FileLine, line: _FileLine, kind: BlockKind) -> bool:
    if line.kind in (BlockKind.HEADING, BlockKind.ITEM) or before.kind is BlockKind.HEADING:
        return False
    return line.kind is kind or (kind is BlockKind.ITEM and line.kind is BlockKind.PROSE)


def _paragraphs(group: Sequence[_FileLine], language: str) -> Iterator[tuple[BlockKind, list[Line]]]:
    """The paragraphs of a group, as lines for reading."""
    kind = group[0].kind
    if kind not in (BlockKind.PROSE, BlockKind.ITEM):
        yield kind, [Line(line.start, line.end, line.start) for line in group]
        return
    width = max(len(line.text) for line in group)
    lines = [Line(group[0].start, group[0].end, group[0].start)]
    for before, line in itertools.pairwise(group):
        is_abbreviated = ends_in_abbreviation(before.text, line.text[0], language)
        if _is_broken(before.text, line.text, width, is_abbreviated):
            lines[-1] = Line(lines[-1].start, line.end, lines[-1].number)
        elif _ends_paragraph(before.text, line.text, width) and not is_abbreviated:
            yield kind, lines
            lines, kind = [Line(line.start, line.end, line.start)], BlockKind.PROSE
        else:
            lines.append(Line(line.start, line.end, line.start))
    yield kind, lines


def _is_broken(before: str, line: str, width: int, is_abbreviated: bool) -> bool:
    """True if the paragraph continues in the next line of the file because the line was full, or ends in an abbreviation."""
    if len(before) > _LONG_LINE or HEADER.match(line) or _REFERENCE.match(line):
        return False
    # A sentence's end with room for the next word was the writer's choice.
    ends_sentence = before.endswith(_SENTENCE_END) and not is_abbreviated
    has_room = ends_sentence and len(before) + len(line.split(" ", 1)[0]) + _SPARE < width
    is_full = width >= _MIN_WIDTH and len(before) >= _FULL_LINE * width and not has_room
    # Code within a sentence begins with a backtick.
    goes_on = line[0].islower() or line[0] == "`"
    return is_full or (goes_on and (is_abbreviated or before[-1] not in ".!?:;"))


def _ends_paragraph(before: str, line: str, width: int) -> bool:
    """True if a paragraph ends with a line, without a blank line: it is long, or shorter than the others and ends a sentence."""
    return len(before) > _LONG_LINE or (
        width >= _MIN_WIDTH and before.endswith(_SENTENCE_END) and not HEADER.match(line)
    )


def _without(lines: list[Line], skip: Sequence[Range]) -> list[Line]:
    if not skip:
        return lines
    return [
        Line(start, end, line.number)
        for line in lines
        for start, end in subtract_ranges([(line.start, line.end)], skip)
    ]
