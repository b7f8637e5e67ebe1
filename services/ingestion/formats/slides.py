"""PowerPoint presentations: a section for each slide, with its lists, tables, charts and notes."""

import io
from collections.abc import Iterator
from typing import Any

from pptx import Presentation
from pptx.enum.shapes import PP_PLACEHOLDER
from pptx.exc import PythonPptxError

from services.ingestion.domain import File, ParsedText, Rejected, RejectionReason
from services.ingestion.formats.archive import BROKEN
from services.ingestion.formats.budget import Budget
from services.ingestion.formats.marks import mark_span, parse_marks, strip_noncharacters
from services.ingestion.formats.table import markdown_table
from tailor.values import SpanKind

LISTS = (PP_PLACEHOLDER.BODY, PP_PLACEHOLDER.OBJECT, PP_PLACEHOLDER.VERTICAL_BODY)


def parse_pptx(file: File, budget: Budget) -> ParsedText:
    """A presentation as Markdown, in the order of its slides."""
    try:
        presentation = Presentation(io.BytesIO(file.data))
        budget.take("pages", len(presentation.slides), "pptx")
        slides = [
            mark_span(SpanKind.SLIDE, number, strip_noncharacters("\n\n".join(_slide(slide, number, budget))))
            for number, slide in enumerate(presentation.slides, 1)
        ]
    except (*BROKEN, PythonPptxError):
        raise Rejected(
            RejectionReason.CORRUPT, "The presentation is damaged or truncated. Save it again.", "pptx"
        ) from None
    return parse_marks("\n\n".join(slides), "pptx")


def _slide(slide: Any, number: int, budget: Budget) -> Iterator[str]:
    title = slide.shapes.title
    title_text = " ".join(title.text_frame.text.split()) if title is not None else ""
    is_cover = title is not None and title.placeholder_format.type == PP_PLACEHOLDER.CENTER_TITLE
    yield f"{'#' if is_cover else '##'} {title_text or f'Slide {number}'}"
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
        yield markdown_table([[cell.text for cell in row.cells] for row in shape.table.rows], budget, "pptx")
    elif getattr(shape, "has_chart", False):
        yield _chart(shape.chart, budget)
    elif shape.has_text_frame and shape.text_frame.text.strip():
        is_list = shape.is_placeholder and shape.placeholder_format.type in LISTS
        yield _paragraphs(shape.text_frame, is_list)


def _paragraphs(frame: Any, is_list: bool) -> str:
    paragraphs = [(paragraph.level, " ".join(paragraph.text.split())) for paragraph in frame.paragraphs]
    if is_list:
        return "\n".join(f"{'  ' * level}- {text}" for level, text in paragraphs if text)
    return "\n\n".join(text for _, text in paragraphs if text)


def _chart(chart: Any, budget: Budget) -> str:
    """A chart as a table: a row for each category, a column for each series."""
    columns = [(series.name, list(series.values)) for plot in chart.plots for series in plot.series]
    names = [str(category) for category in chart.plots[0].categories] if len(chart.plots) else []
    rows = [["", *(name for name, _ in columns)]]
    for place, name in enumerate(names):
        rows.append([name, *(_number(values[place] if place < len(values) else None) for _, values in columns)])
    return markdown_table(rows, budget, "pptx") if names else ""


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:g}"
