"""PDF, read by pdfminer. Font size determines headings; bullets and numbers determine lists. Running lines and contents are left out."""

import io
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from pdfminer.converter import PDFPageAggregator
from pdfminer.layout import LAParams, LTChar, LTPage, LTTextBox, LTTextLine
from pdfminer.pdfdocument import PDFEncryptionError, PDFPasswordIncorrect
from pdfminer.pdfexceptions import PDFException
from pdfminer.pdfinterp import PDFPageInterpreter, PDFResourceManager
from pdfminer.pdfpage import PDFPage
from pdfminer.psexceptions import PSException

from services.ingestion.domain import File, ParsedText, Rejected, RejectionReason
from services.ingestion.formats.archive import BROKEN
from services.ingestion.formats.budget import Budget
from services.ingestion.formats.marks import ENDING, parse_marks, remove_marks, start_mark, strip_noncharacters
from services.ingestion.formats.pdf_lines import PdfLine, remove_repeated
from tailor.values import SpanKind

# In fonts without a character map, a bullet is a character number.
BULLET = re.compile(r"^(?:[•◦▪‣·●*–-]|\(cid:\d+\))(?:\s+(?=\S)|$)")
NUMBER = re.compile(r"^\d{1,3}[.)](?:\s+(?=\S)|$)")
LONE_MARK = re.compile(r"-|\d{1,3}[.)]")
FIELD = re.compile(r"^[A-Z][A-Za-z ]{0,20}:\s")
TAIL_BYTES = 2048
STREAM = re.compile(rb"(?<!end)stream\r?\n")
DICTIONARY_BYTES = 1024
MAX_PIECES = 20_000
# Pictures are never decompressed, so their size does not matter.
PICTURE = re.compile(rb"/Subtype\s*/Image\b")
MAX_STREAM_BYTES = 32 * 1024 * 1024
LARGER = 1.12
# The largest space above a line, relative to its size, with which it continues the paragraph.
CLOSE = 0.45


def parse_pdf(file: File, budget: Budget) -> ParsedText:
    """The text layer of a PDF as Markdown, without running headers and footers and lists of contents."""
    if b"%%EOF" not in file.data[-TAIL_BYTES:]:
        raise Rejected(RejectionReason.CORRUPT, "The PDF is truncated. Export it again.", "pdf")
    _check_streams(file.data, budget)
    try:
        pages, removed = remove_repeated([list(_lines(page)) for page in _pages(file.data, budget)])
        budget.removed.update(removed)
    except (PDFPasswordIncorrect, PDFEncryptionError):
        raise Rejected(
            RejectionReason.ENCRYPTED, "The PDF is protected by a password. Publish it without one.", "pdf"
        ) from None
    except (*BROKEN, PDFException, PSException):
        raise Rejected(RejectionReason.CORRUPT, "The PDF is damaged. Export it again.", "pdf") from None
    lines = list(_open_pages(pages))
    if not lines:
        raise Rejected(
            RejectionReason.NO_TEXT,
            "The PDF contains no text. If it is a scan, publish it with recognised text.",
            "pdf",
        )
    return parse_marks(_join_blocks(_blocks(lines)), "pdf")


def _check_streams(data: bytes, budget: Budget) -> None:
    """Raise Rejected if compressed streams expand too far, before the library decompresses them completely."""
    end = 0
    for stream in STREAM.finditer(data):
        if stream.start() < end:
            continue
        head = data[max(end, stream.start() - DICTIONARY_BYTES) : stream.start()]
        dictionary = head[max(head.rfind(b" obj"), 0) :]
        end = data.find(b"endstream", stream.end())
        end = end if end > 0 else len(data)
        packed = data[stream.end() : end]
        for _ in range(
            dictionary.count(b"/FlateDecode") + dictionary.count(b"/Fl ") if not PICTURE.search(dictionary) else 0
        ):
            packed = _decompress(packed)
            budget.take("expanded_bytes", len(packed), "pdf")


def _decompress(packed: bytes) -> bytes:
    unpacker = zlib.decompressobj()
    try:
        content = unpacker.decompress(packed, MAX_STREAM_BYTES)
    except zlib.error:
        return b""
    if unpacker.unconsumed_tail:
        raise Rejected(
            RejectionReason.TOO_LARGE, "A part of the PDF expands to more than is allowed. Print it again.", "pdf"
        )
    return content


def _join_blocks(blocks: Iterable[str]) -> str:
    """Blocks separated by empty lines, except between items of a list."""
    text, previous_is_item = "", False
    for block in blocks:
        plain = remove_marks(block)
        is_item = bool(plain.startswith("- ") or NUMBER.match(plain))
        text += ("\n" if is_item and previous_is_item else "\n\n") + block
        previous_is_item = is_item
    return text


def _lines(page: LTPage) -> Iterator[PdfLine]:
    # A bullet without width is outside the boxes; it belongs to the line at its height.
    marks = {round(item.y0): item.get_text().strip() for item in page if isinstance(item, LTTextLine)}
    below: float | None = None
    for box in page:
        for line in box if isinstance(box, LTTextBox) else ():
            if isinstance(line, LTTextLine) and line.get_text().strip():
                gap = -1.0 if below is None else below - line.y1
                yield _line(line, marks.pop(round(line.y0), ""), gap)
                below = line.y0


def _open_pages(pages: Iterable[list[PdfLine]]) -> Iterator[PdfLine]:
    """The lines of all pages. The first of a page has its mark, and the next page with text closes the span of this one."""
    for number, (first, *others) in ((number, page) for number, page in enumerate(pages, 1) if page):
        yield replace(first, opening=(ENDING if number > 1 else "") + start_mark(SpanKind.PAGE, number))
        yield from others


class BoundedAggregator(PDFPageAggregator):  # type: ignore[misc]
    """Lays out pages. Raises Rejected (TOO_LARGE) for a page with too many pieces to lay out in time."""

    def render_char(self, *arguments: Any) -> float:
        """Add a character to the page."""
        if len(self.cur_item) > MAX_PIECES:
            raise Rejected(
                RejectionReason.TOO_LARGE,
                "A page of the PDF has more characters than are allowed. Publish it in parts.",
                "pdf",
            )
        return float(super().render_char(*arguments))


def _pages(data: bytes, budget: Budget) -> Iterator[LTPage]:
    resources = PDFResourceManager(caching=True)
    device = BoundedAggregator(resources, laparams=LAParams())
    interpreter = PDFPageInterpreter(resources, device)
    for page in PDFPage.get_pages(io.BytesIO(data)):
        budget.take("pages", 1, "pdf")
        interpreter.process_page(page)
        yield device.get_result()


def _line(line: LTTextLine, mark: str, gap: float) -> PdfLine:
    sizes = Counter(round(item.size, 1) for item in line if isinstance(item, LTChar) and item.get_text().strip())
    text = strip_noncharacters(" ".join([*mark.split(), *line.get_text().split()]))
    return PdfLine(text, sizes.most_common(1)[0][0] if sizes else 0.0, gap, left=line.x0, top=line.y1)


def _blocks(lines: list[PdfLine]) -> Iterator[str]:
    weights: Counter[float] = Counter()
    for line in lines:
        weights[line.size] += len(line.text)
    body = weights.most_common(1)[0][0]
    larger = sorted({line.size for line in lines if line.size > body * LARGER}, reverse=True)
    block: list[PdfLine] = []
    level = 0
    for line in lines:
        line_level = larger.index(line.size) + 1 if line.size in larger else 0
        if block and (line_level != level or not _continues(block[-1].text, line)):
            yield _join_lines(block, level)
            block = []
        level = line_level
        block.append(replace(line, text=BULLET.sub("- ", line.text).strip()))
    if block:
        yield _join_lines(block, level)


def _continues(before: str, line: PdfLine) -> bool:
    """True if a line continues the paragraph above, or a bullet or number on a line without text."""
    if LONE_MARK.fullmatch(before):
        return True
    if BULLET.match(line.text) or NUMBER.match(line.text):
        return False
    if line.gap < -0.5 * line.size or line.gap == -1.0:
        return before[-1:] not in ".!?:" and line.text[:1].islower()
    return line.gap < CLOSE * line.size


def _join_lines(block: list[PdfLine], level: int) -> str:
    joined = block[0].text
    for line in block[1:]:
        if FIELD.match(line.text) and FIELD.match(joined):
            joined += "\n"
        elif not (re.search(r"\w-$", joined) and line.text[:1].islower()):
            joined += " "
        joined += line.opening + line.text
    return block[0].opening + (f"{'#' * min(level, 6)} {joined}" if level else joined)
