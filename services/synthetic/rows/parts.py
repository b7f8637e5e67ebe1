"""Parts of a document that fit into one answer: split at paragraphs, then sentences, then words. Nothing is dropped for its length."""

import bisect
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from services.synthetic.domain import Range
from services.synthetic.rows.budget import RowBudget, RowDraft
from services.synthetic.rows.facts import ValueRun
from services.synthetic.rows.pieces import BlockKind, TextPiece, join_pieces
from services.synthetic.rows.sections import Section

# Shares of the room: for an answer, and for one that is not split further before its prompt has less context.
ANSWER_SHARE, SMALL_SHARE, SMALL_TOKENS = 0.4, 0.12, 32
# Sections with fewer words are taught together with the next.
MIN_WORDS = 15
# How much context a prompt has: 0 all of it, 1 without what was written so far, 2 without the outline too.
LEAST_CONTEXT = 2


@dataclass(frozen=True)
class DocumentPart:
    """Neighbouring pieces under one heading. `is_opening` is False for the later parts of a section."""

    heading: str
    pieces: tuple[TextPiece, ...]
    is_opening: bool = True

    @property
    def start(self) -> int:
        """The first character."""
        return self.pieces[0].start

    @property
    def places(self) -> tuple[Range, ...]:
        """The ranges of its lines."""
        return tuple(place for piece in self.pieces for place in piece.places)

    @cached_property
    def text(self) -> str:
        """The part as it is read, with its heading."""
        return join_pieces(self.pieces)

    @cached_property
    def runs(self) -> tuple[ValueRun, ...]:
        """The values and names in it."""
        return tuple(run for piece in self.pieces for run in piece.runs)

    def halves(self) -> "tuple[DocumentPart, ...]":
        """Two smaller parts, or itself if it cannot be split. A heading stays with the text below it."""
        pieces = _open_single(self.pieces)
        if len(pieces) < 2:
            return (self,)
        cut = _middle(pieces)
        return replace(self, pieces=pieces[:cut]), replace(self, pieces=pieces[cut:], is_opening=False)


Compose = Callable[[DocumentPart, int], RowDraft]


def plan_parts(sections: Sequence[Section], budget: RowBudget) -> list[DocumentPart]:
    """The parts of a document in order; small sections are joined with the next."""
    return [part for unit in _units(sections) for part in _pack(unit, budget)]


def fit_parts(
    parts: Iterable[DocumentPart], compose: Compose, budget: RowBudget
) -> tuple[list[RowDraft], list[DocumentPart]]:
    """A counted row for each part, of parts split until they fit; and the parts for which even one word does not fit."""
    pending = [(part, 0) for part in parts]
    fitting: list[RowDraft] = []
    refused: list[DocumentPart] = []
    while pending:
        rows = budget.count([compose(part, level) for part, level in pending])
        again: list[tuple[DocumentPart, int]] = []
        for (part, level), row in zip(pending, rows, strict=True):
            if row.tokens <= budget.limit:
                fitting.append(row)
            elif smaller := _smaller(part, level, row, budget):
                again += smaller
            else:
                refused.append(part)
        pending = again
    return sorted(fitting, key=lambda row: row.places[0]), refused


def _smaller(part: DocumentPart, level: int, row: RowDraft, budget: RowBudget) -> list[tuple[DocumentPart, int]]:
    """What to try instead of a part that does not fit: its halves, or a prompt with less context. Empty if nothing is left to try."""
    if row.answer_tokens <= max(SMALL_SHARE * budget.room, SMALL_TOKENS) and level < LEAST_CONTEXT:
        return [(part, level + 1)]
    halves = part.halves() if budget.room > 0 else (part,)
    return [(half, level) for half in halves] if len(halves) > 1 else []


def _units(sections: Sequence[Section]) -> Iterator[DocumentPart]:
    """Each section, small ones together with the next (the last with the one before)."""
    units: list[DocumentPart] = []
    pieces: tuple[TextPiece, ...] = ()
    for section in sections:
        pieces += section.pieces
        if sum(piece.words for piece in pieces if piece.kind is not BlockKind.HEADING) >= MIN_WORDS:
            units.append(DocumentPart(section.heading, pieces))
            pieces = ()
    if pieces and units:
        units[-1] = replace(units[-1], pieces=units[-1].pieces + pieces)
    elif pieces:
        units.append(DocumentPart(sections[-1].heading, pieces))
    yield from units


def _pack(unit: DocumentPart, budget: RowBudget) -> Iterator[DocumentPart]:
    limit = budget.characters(ANSWER_SHARE)
    if len(unit.text) <= limit or budget.room <= 0:
        yield unit
        return
    pieces: list[TextPiece] = []
    is_opening = True
    for piece in split_long(unit.pieces, limit):
        size = sum(len(other.text) + 2 for other in pieces)
        if pieces and size + len(piece.text) > limit and pieces[-1].kind is not BlockKind.HEADING:
            yield replace(unit, pieces=tuple(pieces), is_opening=is_opening)
            pieces, is_opening = [], False
        pieces.append(piece)
    yield replace(unit, pieces=tuple(pieces), is_opening=is_opening)


def split_long(pieces: Iterable[TextPiece], limit: int) -> Iterator[TextPiece]:
    """The pieces, of which those with more characters are halved until they fit."""
    for piece in pieces:
        halves = piece.halves() if len(piece.text) > limit else (piece,)
        if len(halves) > 1:
            yield from split_long(halves, limit)
        else:
            yield piece


def _open_single(pieces: tuple[TextPiece, ...]) -> tuple[TextPiece, ...]:
    """The pieces, of which the only one below a heading is halved, and a heading without text too."""
    body = pieces[1:] if len(pieces) > 1 and pieces[0].kind is BlockKind.HEADING else pieces
    return (*pieces[: len(pieces) - len(body)], *(body[0].halves() if len(body) == 1 else body))


def _middle(pieces: Sequence[TextPiece]) -> int:
    """The number of pieces in the first half, by characters; a heading is not the only piece of a half if there are more."""
    ends = list(itertools.accumulate(len(piece.text) for piece in pieces))
    middle = bisect.bisect_left(ends, ends[-1] / 2)
    first = 2 if pieces[0].kind is BlockKind.HEADING and len(pieces) > 2 else 1
    return min(max(middle, first), len(pieces) - 1)
