"""Excel workbooks: a section for each sheet, a table for each block of rows."""

import datetime
import io
from collections.abc import Iterator, Sequence
from typing import Any

from openpyxl import load_workbook
from openpyxl.utils.exceptions import InvalidFileException

from services.ingestion.adapters.formats.archive import BROKEN
from services.ingestion.adapters.formats.budget import Budget
from services.ingestion.adapters.formats.marks import foreign, spanned, within
from services.ingestion.adapters.formats.table import table
from services.ingestion.domain import File, Parsed, Rejected, RejectionReason
from services.ingestion.spans import SpanKind

MAX_ROWS = 1_048_576
MIDNIGHT = datetime.time()


def parse_xlsx(file: File, budget: Budget) -> Parsed:
    """Markdown of a workbook's values as they were last calculated; formulas and macros are not run."""
    try:
        workbook = load_workbook(io.BytesIO(file.data), read_only=True, data_only=True, keep_links=False)
        budget.take("pages", len(workbook.worksheets), "xlsx")
        sheets = [
            within(SpanKind.SHEET, number, foreign(f"## {sheet.title}\n\n{_sheet(sheet, budget)}"))
            for number, sheet in enumerate(workbook.worksheets, 1)
        ]
    except (*BROKEN, InvalidFileException):
        raise Rejected(RejectionReason.CORRUPT, "The workbook is damaged or cut off; save it again.", "xlsx") from None
    return spanned("\n\n".join(sheets), "xlsx")


def _sheet(sheet: Any, budget: Budget) -> str:
    # What the sheet says of its own size may be anything.
    sheet.reset_dimensions()
    return "\n\n".join(
        table(block, budget, "xlsx") if max(map(len, block)) > 1 else "\n".join(cell for row in block for cell in row)
        for block in _blocks(sheet, budget)
    )


def _blocks(sheet: Any, budget: Budget) -> Iterator[Sequence[Sequence[str]]]:
    """Rows between empty rows, without their empty columns to the left and right."""
    block: list[list[str]] = []
    for number, values in enumerate(sheet.iter_rows(values_only=True)):
        if number > MAX_ROWS or len(values) * (len(block) + 1) > budget.cells:
            budget.take("cells", budget.cells + 1, "xlsx")
        row = [_text(value) for value in values]
        if any(row):
            budget.take("rows", 1, "xlsx")
            block.append(row)
        elif block:
            yield _trimmed(block)
            block = []
    if block:
        yield _trimmed(block)


def _trimmed(block: list[list[str]]) -> list[list[str]]:
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
