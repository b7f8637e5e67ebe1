"""Tables: their cells, and questions about the rows and columns of tables of figures, which no sentence asks about."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from services.synthetic.domain import Range
from services.synthetic.rows.pieces import BlockKind, Sentence, TextPiece
from services.synthetic.rows.structure import has_words
from services.synthetic.rows.templates import draw

_CELL_END = re.compile(r"(?<!\\)\|")
_RULE = re.compile(r"[\s|:-]*-[\s|:-]*")
# Cells of a column that one question may ask for.
_MAX_CELLS = 40


@dataclass(frozen=True)
class TableQuestion:
    """A subject that a table answers, the answer in words of the table, and the lines that it is from."""

    topic: str
    answer: str
    places: tuple[Range, ...]


def read_cells(line: str) -> list[str]:
    """The cells of a line of a table."""
    return [
        cell.strip().replace("\\|", "|") for cell in _CELL_END.split(line.strip().removeprefix("|").removesuffix("|"))
    ]


def is_rule(line: str) -> bool:
    """True for the line between the header and the rows."""
    return _RULE.fullmatch(line) is not None


def is_table(pieces: Sequence[TextPiece]) -> bool:
    """True if there is nothing but tables with letters or digits, and headings."""
    kinds = {piece.kind for piece in pieces}
    has_cells = any(map(str.isalnum, "".join(piece.text for piece in pieces if piece.kind is BlockKind.TABLE)))
    return has_cells and kinds <= {BlockKind.TABLE, BlockKind.HEADING}


def is_figures(pieces: Sequence[TextPiece]) -> bool:
    """True if there is nothing but tables whose rows have hardly any words, and headings."""
    return is_table(pieces) and not has_words("".join(_without_head(piece) for piece in pieces))


def _without_head(piece: TextPiece) -> str:
    if piece.kind is not BlockKind.TABLE:
        return ""
    return piece.text if find_head(piece) is None else piece.part(2, len(piece.lines)).text


def find_head(piece: TextPiece) -> TextPiece | None:
    """The header of a table and the line below it; None if the piece has none."""
    if piece.kind is not BlockKind.TABLE or len(piece.lines) < 3:
        return None
    head = piece.part(0, 2)
    first, second = head.text.split("\n")
    return head if is_rule(second) and not is_rule(first) else None


def split_table(piece: TextPiece, max_words: int, max_chars: int) -> Iterator[TextPiece]:
    """The rows of a table in pieces of at most this number of words and characters, or of one row; without the header."""
    start, words, chars = 2, 0, 0
    for number, sentence in enumerate(piece.sentences[2:], 2):
        length, size = len(sentence.text.split()), len(sentence.text) + 1
        if number > start and (words + length > max_words or chars + size > max_chars):
            yield piece.part(start, number)
            start, words, chars = number, 0, 0
        words, chars = words + length, chars + size
    if start < len(piece.lines):
        yield piece.part(start, len(piece.lines))


def list_records(pieces: Sequence[TextPiece]) -> list[str]:
    """The cells of each line, without the rules."""
    lines = [line for piece in pieces if piece.kind is BlockKind.TABLE for line in piece.text.split("\n")]
    return ["; ".join(filter(None, read_cells(line))) for line in lines if not is_rule(line)]


def ask_table(head: str, rows: Sequence[Sentence], key: str) -> list[TableQuestion]:
    """A question about a row, by its first cell, and one about a column, by its header; the key draws both. `head` is the header."""
    header = read_cells(head)
    cells = [read_cells(row.text) for row in rows]
    named = [number for number, row in enumerate(cells) if len(row) == len(header) > 1 and row[0]]
    columns = [number for number, name in enumerate(header) if number and name and header.count(name) == 1]
    # A file without a header begins with figures.
    if not named or not columns or not any(map(str.isalpha, head)):
        return []
    asked = [_ask_row(header, cells, named[draw(len(named), "row", key)], rows)]
    if 1 < len(named) <= _MAX_CELLS:
        asked.append(_ask_column(header, cells, named, columns[draw(len(columns), "column", key)], rows))
    return [question for question in asked if question is not None]


def _ask_row(
    header: Sequence[str], cells: Sequence[Sequence[str]], number: int, rows: Sequence[Sentence]
) -> TableQuestion | None:
    """None if several rows begin alike, or the row has no other cell."""
    label = cells[number][0]
    pairs = [(name, cell) for name, cell in zip(header[1:], cells[number][1:], strict=True) if name and cell]
    if not pairs or sum(row[0] == label for row in cells) > 1:
        return None
    answer = "\n".join(f"- {name}: {cell}" for name, cell in pairs)
    return TableQuestion(f"{header[0]} {label}".strip(), answer, ((rows[number].start, rows[number].end),))


def _ask_column(
    header: Sequence[str], cells: Sequence[Sequence[str]], named: Sequence[int], column: int, rows: Sequence[Sentence]
) -> TableQuestion | None:
    numbers = [number for number in named if cells[number][column]]
    answer = "\n".join(f"- {cells[number][0]}: {cells[number][column]}" for number in numbers)
    # The answer has two of the cells of these lines; that it teaches them would be saying too much.
    return TableQuestion(header[column], answer, ()) if numbers else None
