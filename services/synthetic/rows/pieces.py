"""Pieces of a document: a paragraph, a list's item, a table or a part of one, from which answers are put together."""

import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import NamedTuple

from services.synthetic.domain import Range
from services.synthetic.rows.facts import ValueRun, find_runs
from services.synthetic.rows.sentences import find_sentences
from services.synthetic.rows.structure import count_words, is_fragment, normalize

_BROKEN_WORD = re.compile(r"([^\W\d_][-\u2010\u00ad])[^\S\n]*\n\s*(?=[^\W\d_A-ZÀ-Þ])")
_BLANK_LINE = re.compile(r"\n[^\S\n]*\n")
# Blanks that are tried as the end of a half.
_MAX_CUTS = 16


class BlockKind(StrEnum):
    """Kinds of blocks."""

    HEADING = "heading"
    PROSE = "prose"
    ITEM = "item"
    TABLE = "table"
    CODE = "code"


class Line(NamedTuple):
    """A line for reading, [start, end): several lines of the file if a paragraph is broken hard. `number` is its start in the file."""

    start: int
    end: int
    number: int


class Sentence(NamedTuple):
    """A sentence, or a table's row, at [start, end), as it is read; with the values and names in it."""

    start: int
    end: int
    text: str
    runs: tuple[ValueRun, ...]


@dataclass(frozen=True)
class Reading:
    """A document's text, and its language as the first part of its tag (`de` of `de-AT`)."""

    text: str
    language: str


@dataclass(frozen=True)
class TextPiece:
    """A block or a part of one. `block` is where its block begins, so that parts of one block are joined again as they were."""

    reading: Reading
    kind: BlockKind
    block: int
    lines: tuple[Line, ...]

    @property
    def start(self) -> int:
        """The first character."""
        return self.lines[0].start

    @property
    def end(self) -> int:
        """The place after the last character."""
        return self.lines[-1].end

    @property
    def places(self) -> tuple[Range, ...]:
        """The ranges of its lines."""
        return tuple((line.start, line.end) for line in self.lines)

    @cached_property
    def text(self) -> str:
        """The piece as it is read: the lines of a paragraph are joined."""
        return "\n".join(self._read(line.start, line.end) for line in self.lines)

    @cached_property
    def words(self) -> int:
        """The number of words."""
        return count_words(self.text)

    @cached_property
    def sentences(self) -> tuple[Sentence, ...]:
        """The piece's sentences; of a table or code, its lines."""
        return tuple(self._sentence(*place) for line in self.lines for place in self._split(line))

    @property
    def runs(self) -> tuple[ValueRun, ...]:
        """The values and names in the piece, in order."""
        return tuple(run for sentence in self.sentences for run in sentence.runs)

    def halves(self) -> "tuple[TextPiece, ...]":
        """Two or more smaller pieces: its lines, else its sentences, else its words; itself if it is one character."""
        if len(self.lines) > 1:
            middle = len(self.lines) // 2
            return self._with(self.lines[:middle]), self._with(self.lines[middle:])
        (line,) = self.lines
        sentences = self._split(line)
        if len(sentences) > 1:
            middle = len(sentences) // 2
            places = [
                (sentences[0][0], sentences[middle - 1][1]),
                (sentences[middle][0], sentences[-1][1]),
            ]
        else:
            places = _halve(self.reading.text, line.start, line.end)
        return tuple(self._with((Line(start, end, line.number),)) for start, end in places)

    def part(self, start: int, end: int) -> "TextPiece":
        """The lines [start, end)."""
        return self._with(self.lines[start:end])

    def _with(self, lines: Sequence[Line]) -> "TextPiece":
        return TextPiece(self.reading, self.kind, self.block, tuple(lines))

    def _split(self, line: Line) -> list[Range]:
        if self.kind in (BlockKind.TABLE, BlockKind.CODE, BlockKind.HEADING):
            return [(line.start, line.end)]
        return find_sentences(self.reading.text, line.start, line.end, self.reading.language)

    def _sentence(self, start: int, end: int) -> Sentence:
        text = normalize(self._read(start, end))
        return Sentence(start, end, text, find_runs(text, self.reading.language, start))

    def _read(self, start: int, end: int) -> str:
        raw = self.reading.text[start:end]
        if self.kind is BlockKind.CODE or "\n" not in raw:
            return raw.rstrip()
        indent = raw[: len(raw) - len(raw.lstrip())]
        return indent + " ".join(_BROKEN_WORD.sub(r"\1", raw).split())


def join_pieces(pieces: Iterable[TextPiece]) -> str:
    """The text of pieces in order. Parts of a block are joined as they were, items by the end of a line, blocks by an empty line."""
    text, before = "", None
    for piece in pieces:
        text += ("" if before is None else _separator(before, piece)) + piece.text
        before = piece
    return text


def _separator(before: TextPiece, after: TextPiece) -> str:
    gap = before.reading.text[before.end : after.start]
    if before.block == after.block:
        if before.lines[-1].number != after.lines[0].number:
            return "\n"
        return " " if gap else ""
    is_close = before.kind is after.kind and before.kind in (BlockKind.ITEM, BlockKind.TABLE)
    return "\n" if is_close and not _BLANK_LINE.search(gap) else "\n\n"


def _halve(text: str, start: int, end: int) -> list[Range]:
    """Two halves at a blank near the middle, if possible not after a function word; or at the middle. The whole of a single character."""
    if end - start < 2:
        return [(start, end)]
    middle = (start + end) // 2
    around = itertools.chain.from_iterable((middle - step, middle + step) for step in range((end - start) // 4))
    blanks = list(itertools.islice((place for place in around if text[place].isspace()), _MAX_CUTS))
    cut = next((place for place in blanks if not is_fragment(text[start:place])), blanks[0] if blanks else middle)
    after = cut + 1 if text[cut].isspace() else cut
    return [place for place in ((start, cut), (after, end)) if place[0] < place[1]]
