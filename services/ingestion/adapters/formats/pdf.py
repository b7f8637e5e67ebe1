"""PDF through pdfminer: headings are told by their size, lists by their marks."""

import io
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from pdfminer.converter import PDFPageAggregator
from pdfminer.layout import LAParams, LTChar, LTPage, LTTextBox, LTTextLine
from pdfminer.pdfdocument import PDFEncryptionError, PDFPasswordIncorrect
from pdfminer.pdfexceptions import PDFException
from pdfminer.pdfinterp import PDFPageInterpreter, PDFResourceManager
from pdfminer.pdfpage import PDFPage
from pdfminer.psexceptions import PSException

from services.ingestion.adapters.formats.archive import BROKEN
from services.ingestion.adapters.formats.budget import Budget
from services.ingestion.adapters.formats.marks import ENDING, foreign, spanned, unmarked
from services.ingestion.adapters.formats.marks import opening as mark_of
from services.ingestion.domain import File, Parsed, Rejected, RejectionReason
from services.ingestion.spans import SpanKind

# Fonts without a table of letters give their bullet as a number.
BULLET = re.compile(r"^(?:[•◦▪‣·●*–-]|\(cid:\d+\))(?:\s+(?=\S)|$)")
NUMBER = re.compile(r"^\d{1,3}[.)](?:\s+(?=\S)|$)")
MARK_ALONE = re.compile(r"-|\d{1,3}[.)]")
FIELD = re.compile(r"^[A-Z][A-Za-z ]{0,20}:\s")
TAIL_BYTES = 2048
STREAM = re.compile(rb"(?<!end)stream\r?\n")
DICTIONARY_BYTES = 1024
MAX_PIECES = 20_000
# Pictures are not opened, so that they may expand to anything.
PICTURE = re.compile(rb"/Subtype\s*/Image\b")
MAX_STREAM_BYTES = 32 * 1024 * 1024
LARGER = 1.12
# Space above a line, in parts of its size, up to which it belongs to the paragraph.
CLOSE = 0.45


@dataclass(frozen=True)
class Line:
    """One line; `size` and `gap`, the space above it, in points. The gap is negative where a page or column begins; `opening` is the
    mark of a page that begins with it."""

    text: str
    size: float
    gap: float
    opening: str = ""


def parse_pdf(file: File, budget: Budget) -> Parsed:
    """Markdown of a PDF's text layer."""
    if b"%%EOF" not in file.data[-TAIL_BYTES:]:
        raise Rejected(RejectionReason.CORRUPT, "The PDF is cut off; export it again.", "pdf")
    _check_streams(file.data, budget)
    try:
        lines = list(_lines(file.data, budget))
    except (PDFPasswordIncorrect, PDFEncryptionError):
        raise Rejected(
            RejectionReason.ENCRYPTED, "The PDF is protected by a password; publish it without one.", "pdf"
        ) from None
    except (*BROKEN, PDFException, PSException):
        raise Rejected(RejectionReason.CORRUPT, "The PDF is damaged; export it again.", "pdf") from None
    if not lines:
        raise Rejected(
            RejectionReason.NO_TEXT, "The PDF holds no text; if it is a scan, publish it with recognised text.", "pdf"
        )
    return spanned(_stacked(_blocks(lines)), "pdf")


def _check_streams(data: bytes, budget: Budget) -> None:
    """Refuse a PDF whose packed streams expand too far, before the library unpacks them whole."""
    end = 0
    for stream in STREAM.finditer(data):
        if stream.start() < end:
            continue
        head = data[max(end, stream.start() - DICTIONARY_BYTES) : stream.start()]
        own = head[max(head.rfind(b" obj"), 0) :]
        found = data.find(b"endstream", stream.end())
        end = found if found > 0 else len(data)
        packed = data[stream.end() : end]
        for _ in range(own.count(b"/FlateDecode") + own.count(b"/Fl ") if not PICTURE.search(own) else 0):
            packed = _expanded(packed)
            budget.take("expanded_bytes", len(packed), "pdf")


def _expanded(packed: bytes) -> bytes:
    unpacker = zlib.decompressobj()
    try:
        content = unpacker.decompress(packed, MAX_STREAM_BYTES)
    except zlib.error:
        return b""
    if unpacker.unconsumed_tail:
        raise Rejected(
            RejectionReason.TOO_LARGE, "A part of the PDF expands to more than is read; print it again.", "pdf"
        )
    return content


def _stacked(blocks: Iterable[str]) -> str:
    """Blocks with an empty line between them, items of a list without one."""
    stacked, before_is_item = "", False
    for block in blocks:
        plain = unmarked(block)
        is_item = bool(plain.startswith("- ") or NUMBER.match(plain))
        stacked += ("\n" if is_item and before_is_item else "\n\n") + block
        before_is_item = is_item
    return stacked


def _lines(data: bytes, budget: Budget) -> Iterator[Line]:
    for number, page in enumerate(_pages(data, budget), 1):
        # What a page opens, the next one with words closes.
        opening = (ENDING if number > 1 else "") + mark_of(SpanKind.PAGE, number)
        # A mark without width stays alone, outside the boxes; it belongs to the line at its height.
        marks = {round(item.y0): item.get_text().strip() for item in page if isinstance(item, LTTextLine)}
        below: float | None = None
        for box in page:
            for line in box if isinstance(box, LTTextBox) else ():
                if isinstance(line, LTTextLine) and line.get_text().strip():
                    gap = -1.0 if below is None else below - line.y1
                    yield replace(_line(line, marks.pop(round(line.y0), ""), gap), opening=opening)
                    below, opening = line.y0, ""


class Device(PDFPageAggregator):  # type: ignore[misc]
    """Lays out one page after another; Rejected where one has so many pieces that this would take too long."""

    def render_char(self, *arguments: Any) -> float:
        """Add a letter to the page."""
        if len(self.cur_item) > MAX_PIECES:
            raise Rejected(RejectionReason.TOO_LARGE, "A page of the PDF holds more letters than are read.", "pdf")
        return float(super().render_char(*arguments))


def _pages(data: bytes, budget: Budget) -> Iterator[LTPage]:
    resources = PDFResourceManager(caching=True)
    device = Device(resources, laparams=LAParams())
    interpreter = PDFPageInterpreter(resources, device)
    for page in PDFPage.get_pages(io.BytesIO(data)):
        budget.take("pages", 1, "pdf")
        interpreter.process_page(page)
        yield device.get_result()


def _line(line: LTTextLine, mark: str, gap: float) -> Line:
    sizes = Counter(round(item.size, 1) for item in line if isinstance(item, LTChar) and item.get_text().strip())
    text = foreign(" ".join([*mark.split(), *line.get_text().split()]))
    return Line(text, sizes.most_common(1)[0][0] if sizes else 0.0, gap)


def _blocks(lines: list[Line]) -> Iterator[str]:
    weights: Counter[float] = Counter()
    for line in lines:
        weights[line.size] += len(line.text)
    body = weights.most_common(1)[0][0]
    larger = sorted({line.size for line in lines if line.size > body * LARGER}, reverse=True)
    block: list[Line] = []
    level = 0
    for line in lines:
        own = larger.index(line.size) + 1 if line.size in larger else 0
        if block and (own != level or not _continues(block[-1].text, line)):
            yield _joined(block, level)
            block = []
        level = own
        block.append(replace(line, text=BULLET.sub("- ", line.text).strip()))
    if block:
        yield _joined(block, level)


def _continues(before: str, line: Line) -> bool:
    """True where a line goes on with the paragraph above, or with its own mark that stands alone."""
    if MARK_ALONE.fullmatch(before):
        return True
    if BULLET.match(line.text) or NUMBER.match(line.text):
        return False
    if line.gap < -0.5 * line.size or line.gap == -1.0:
        return before[-1:] not in ".!?:" and line.text[:1].islower()
    return line.gap < CLOSE * line.size


def _joined(block: list[Line], level: int) -> str:
    joined = block[0].text
    for line in block[1:]:
        if FIELD.match(line.text) and FIELD.match(joined):
            joined += "\n"
        elif not (re.search(r"\w-$", joined) and line.text[:1].islower()):
            joined += " "
        joined += line.opening + line.text
    return block[0].opening + (f"{'#' * min(level, 6)} {joined}" if level else joined)
