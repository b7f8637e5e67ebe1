"""PowerPoint: a section for each slide, with its lists, tables, charts and notes."""

import io
from collections.abc import Iterator
from typing import Any

from pptx import Presentation
from pptx.enum.shapes import PP_PLACEHOLDER
from pptx.exc import PythonPptxError

from services.ingestion.adapters.formats.archive import BROKEN
from services.ingestion.adapters.formats.budget import Budget
from services.ingestion.adapters.formats.marks import foreign, spanned, within
from services.ingestion.adapters.formats.table import table
from services.ingestion.domain import File, Parsed, Rejected, RejectionReason
from services.ingestion.spans import SpanKind

LISTS = (PP_PLACEHOLDER.BODY, PP_PLACEHOLDER.OBJECT, PP_PLACEHOLDER.VERTICAL_BODY)


def parse_pptx(file: File, budget: Budget) -> Parsed:
    """Markdown of a presentation, slides in their order."""
    try:
        presentation = Presentation(io.BytesIO(file.data))
        budget.take("pages", len(presentation.slides), "pptx")
        slides = [
            within(SpanKind.SLIDE, number, foreign("\n\n".join(_slide(slide, number, budget))))
            for number, slide in enumerate(presentation.slides, 1)
        ]
    except (*BROKEN, PythonPptxError):
        raise Rejected(
            RejectionReason.CORRUPT, "The presentation is damaged or cut off; save it again.", "pptx"
        ) from None
    return spanned("\n\n".join(slides), "pptx")


def _slide(slide: Any, number: int, budget: Budget) -> Iterator[str]:
    title = slide.shapes.title
    words = " ".join(title.text_frame.text.split()) if title is not None else ""
    is_cover = title is not None and title.placeholder_format.type == PP_PLACEHOLDER.CENTER_TITLE
    yield f"{'#' if is_cover else '##'} {words or f'Slide {number}'}"
    for shape in slide.shapes:
        if title is None or shape.shape_id != title.shape_id:
            yield from _shape(shape, budget)
    notes = slide.notes_slide.notes_text_frame if slide.has_notes_slide else None
    if notes is not None and notes.text.strip():
        yield f"### Notes\n\n{notes.text}"


def _shape(shape: Any, budget: Budget) -> Iterator[str]:
    if hasattr(shape, "shapes"):
        for inner in shape.shapes:
            yield from _shape(inner, budget)
    elif getattr(shape, "has_table", False):
        yield table([[cell.text for cell in row.cells] for row in shape.table.rows], budget, "pptx")
    elif getattr(shape, "has_chart", False):
        yield _chart(shape.chart, budget)
    elif shape.has_text_frame and shape.text_frame.text.strip():
        is_list = shape.is_placeholder and shape.placeholder_format.type in LISTS
        yield _paragraphs(shape.text_frame, is_list)


def _paragraphs(frame: Any, is_list: bool) -> str:
    paragraphs = [(each.level, " ".join(each.text.split())) for each in frame.paragraphs]
    if is_list:
        return "\n".join(f"{'  ' * level}- {words}" for level, words in paragraphs if words)
    return "\n\n".join(words for _, words in paragraphs if words)


def _chart(chart: Any, budget: Budget) -> str:
    """A chart's numbers: a row for each category, a column for each series."""
    series = [(each.name, list(each.values)) for plot in chart.plots for each in plot.series]
    names = [str(each) for each in chart.plots[0].categories] if len(chart.plots) else []
    rows = [["", *(name for name, _ in series)]]
    for place, name in enumerate(names):
        rows.append([name, *(_number(values[place] if place < len(values) else None) for _, values in series)])
    return table(rows, budget, "pptx") if names else ""


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:g}"
