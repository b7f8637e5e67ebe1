"""Tables: rows as Markdown, and files of comma-separated values."""

import csv
import io
from collections import Counter
from collections.abc import Sequence

from services.ingestion.domain import File, ParsedText, Rejected, RejectionReason, clean
from services.ingestion.formats.budget import Budget
from services.ingestion.formats.text import declared_charset, decode

DELIMITERS = ",;\t|"
SAMPLE_LINES = 50
MAX_FIELD_CHARS = 1_000_000


def markdown_table(rows: Sequence[Sequence[str]], budget: Budget, format: str) -> str:
    """A Markdown table with the first row as its header. Raises Rejected (TOO_LARGE) if it exceeds the budget."""
    width = max(map(len, rows), default=0)
    budget.take("cells", width * len(rows), format)
    budget.take("characters", sum(len(cell) for row in rows for cell in row), format)
    lines = [f"| {' | '.join([*map(_cell, row), *([''] * (width - len(row)))])} |" for row in rows]
    return "\n".join([*lines[:1], f"|{' --- |' * width}", *lines[1:]]) if width else ""


def parse_csv(file: File, budget: Budget) -> ParsedText:
    """One table. The first lines determine the delimiter."""
    text = decode(file.data, declared_charset(file.content_type)).replace("\0", "")
    csv.field_size_limit(MAX_FIELD_CHARS)
    rows: list[list[str]] = []
    try:
        for row in csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(text)):
            if len(row) * (len(rows) + 1) > budget.cells:
                budget.take("cells", budget.cells + 1, "csv")
            if any(cell.strip() for cell in row):
                rows.append(row)
    except csv.Error:
        hint = "A field is not closed or is longer than is allowed. Export the table again."
        raise Rejected(RejectionReason.CORRUPT, hint, "csv") from None
    return ParsedText(clean(markdown_table(rows, budget, "csv")), "csv")


def _delimiter(text: str) -> str:
    """The delimiter that occurs equally often in most of the first lines."""
    lines = [line for line in text[: SAMPLE_LINES * 1_000].splitlines()[:SAMPLE_LINES] if line.strip()]

    def score(delimiter: str) -> int:
        counts = Counter(line.count(delimiter) for line in lines)
        counts.pop(0, None)
        return max(counts.values(), default=0)

    return max(DELIMITERS, key=score)


def _cell(value: str) -> str:
    return " ".join(value.split()).replace("|", "\\|")
