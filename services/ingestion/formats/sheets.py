"""Excel workbooks: a section for each sheet, and a table for each block of rows."""

import datetime
import io
from collections.abc import Iterator, Sequence
from typing import Any

from openpyxl import load_workbook
from openpyxl.utils.exceptions import InvalidFileException

from services.ingestion.domain import File, ParsedText, Rejected, RejectionReason
from services.ingestion.formats.archive import BROKEN
from services.ingestion.formats.budget import Budget
from services.ingestion.formats.marks import mark_span, parse_marks, strip_noncharacters
from services.ingestion.formats.table import markdown_table
from tailor.values import SpanKind

MAX_ROWS = 1_048_576
MIDNIGHT = datetime.time()


def parse_xlsx(file: File, budget: Budget) -> ParsedText:
    """A workbook's last calculated values as Markdown. Formulas and macros are not run."""
    try:
        workbook = load_workbook(io.BytesIO(file.data), read_only=True, data_only=True, keep_links=False)
        budget.take("pages", len(workbook.worksheets), "xlsx")
        sheets = [
            mark_span(SpanKind.SHEET, number, strip_noncharacters(f"## {sheet.title}\n\n{_sheet(sheet, budget)}"))
            for number, sheet in enumerate(workbook.worksheets, 1)
        ]
    except (*BROKEN, InvalidFileException):
        raise Rejected(
            RejectionReason.CORRUPT, "The workbook is damaged or truncated. Save it again.", "xlsx"
        ) from None
    return parse_marks("\n\n".join(sheets), "xlsx")


def _sheet(sheet: Any, budget: Budget) -> str:
    # The size that the sheet declares may be wrong.
    sheet.reset_dimensions()
    return "\n\n".join(
        markdown_table(block, budget, "xlsx")
        if max(map(len, block)) > 1
        else "\n".join(cell for row in block for cell in row)
        for block in _blocks(sheet, budget)
    )


def _blocks(sheet: Any, budget: Budget) -> Iterator[Sequence[Sequence[str]]]:
    """Blocks of rows between empty rows, without empty columns at the left and right."""
    block: list[list[str]] = []
    for number, values in enumerate(sheet.iter_rows(values_only=True)):
        if number > MAX_ROWS or len(values) * (len(block) + 1) > budget.cells:
            budget.take("cells", budget.cells + 1, "xlsx")
        row = [_text(value) for value in values]
        if any(row):
            budget.take("rows", 1, "xlsx")
            block.append(row)
        elif block:
            yield _trim(block)
            block = []
    if block:
        yield _trim(block)


def _trim(block: list[list[str]]) -> list[list[str]]:
    first = min(next(place for place, cell in enumerate(row) if cell) for row in block)
    return [row[first : max(place for place, cell in enumerate(row) if cell) + 1] for row in block]


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime.datetime):
        return str(value.date() if value.time() == MIDNIGHT else value)
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return " ".join(str(value).split())
