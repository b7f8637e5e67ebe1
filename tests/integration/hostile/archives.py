"""Malicious archives and Office files."""

import io
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping

from docx import Document
from openpyxl import Workbook
from pptx import Presentation

from tests.integration.hostile.collection import BOMB, MIB, OLE, Files, adder
from tests.unit.ingestion.compound import make_compound

FILES: Files = {}
add = adder(FILES)
W = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
S = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
XXE = '<!DOCTYPE b [<!ENTITY secret SYSTEM "file:///etc/passwd">]>'


def docx() -> bytes:
    document, buffer = Document(), io.BytesIO()
    document.add_paragraph("Harmless words.")
    document.save(buffer)
    return buffer.getvalue()


def xlsx() -> bytes:
    book, buffer = Workbook(), io.BytesIO()
    book.active.append(["Harmless", "words"])
    book.save(buffer)
    return buffer.getvalue()


def pptx() -> bytes:
    deck, buffer = Presentation(), io.BytesIO()
    deck.slides.add_slide(deck.slide_layouts[0]).shapes.title.text = "Harmless words"
    deck.save(buffer)
    return buffer.getvalue()


def with_parts(data: bytes, parts: Mapping[str, str | bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    """The archive with parts replaced or added."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(buffer, "w", compression) as new:
        for entry in old.infolist():
            if entry.filename not in parts:
                new.writestr(entry.filename, old.read(entry))
        for name, content in parts.items():
            new.writestr(name, content)
    return buffer.getvalue()


def zeros(name: str, mib: int) -> bytes:
    """An archive of one entry that expands to `mib` MiB."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive, archive.open(name, "w") as part:
        for _ in range(mib):
            part.write(b" " * MIB)
    return buffer.getvalue()


def body(content: str, prolog: str = "") -> str:
    return f'<?xml version="1.0"?>{prolog}<w:document {W}><w:body>{content}</w:body></w:document>'


def paragraph(text: str) -> str:
    return f"<w:p><w:r><w:t>{text}</w:t></w:r></w:p>"


def sheet(rows: str, prolog: str = "") -> str:
    return f'<?xml version="1.0"?>{prolog}<worksheet {S}><sheetData>{rows}</sheetData></worksheet>'


def with_picture() -> bytes:
    head = struct.pack(">IIBBBBB", 2**31 - 1, 2**31 - 1, 8, 6, 0, 0, 0)
    chunk = struct.pack(">I", 13) + b"IHDR" + head + struct.pack(">I", zlib.crc32(b"IHDR" + head))
    return with_parts(docx(), {"word/media/image1.png": b"\x89PNG\r\n\x1a\n" + chunk})


SHEET, SLIDE, WORDS = "xl/worksheets/sheet1.xml", "ppt/slides/slide1.xml", "word/document.xml"


def in_docx(content: str, prolog: str = "", encoding: str = "utf-8") -> bytes:
    return with_parts(docx(), {WORDS: body(content, prolog).encode(encoding)})


def in_sheet(rows: str, prolog: str = "") -> bytes:
    return with_parts(xlsx(), {SHEET: sheet(rows, prolog)})


def in_slide(change: Callable[[str], str]) -> bytes:
    data = pptx()
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return with_parts(data, {SLIDE: change(archive.read(SLIDE).decode())})


add("docx-bomb", "a.docx", lambda: zeros(WORDS, 250))
add("docx-bomb-of-honest-ratio", "a.docx", lambda: in_docx(paragraph("words ") * 400_000))
add("xlsx-bomb", "a.xlsx", lambda: zeros(SHEET, 220))
add("pptx-bomb", "a.pptx", lambda: zeros("ppt/presentation.xml", 100))
add("zip-bomb-in-zip-bomb", "a.zip", lambda: with_parts(zeros("a", 50), {f"{n}.zip": zeros("b", 20) for n in range(5)}))
add(
    "docx-with-nested-bombs",
    "a.docx",
    lambda: with_parts(docx(), {"word/embeddings/a.zip": zeros("b.zip", 60)}, zipfile.ZIP_STORED),
)
add(
    "many-entries",
    "a.docx",
    lambda: with_parts(docx(), {f"word/{n}.xml": "<a/>" for n in range(10_000)}, zipfile.ZIP_STORED),
)
add(
    "path-traversal",
    "../../../etc/cron.d/a.docx",
    lambda: with_parts(docx(), {"../../../tmp/evil": "x", "/etc/evil": "y", "C:\\evil": "z"}),
)
add("entity-bomb-docx", "a.docx", lambda: in_docx(paragraph("&a9;"), BOMB))
add(
    "entity-bomb-xlsx",
    "a.xlsx",
    lambda: with_parts(
        xlsx(), {"xl/sharedStrings.xml": f'<?xml version="1.0"?>{BOMB}<sst {S}><si><t>&a9;</t></si></sst>'}
    ),
)
add("entity-bomb-pptx", "a.pptx", lambda: in_slide(lambda xml: xml.replace("<p:sld ", f"{BOMB}<p:sld ", 1)))
add("entity-bomb-utf16", "a.docx", lambda: in_docx(paragraph("&a9;"), BOMB, "utf-16"))
add("entity-bomb-utf16-xlsx", "a.xlsx", lambda: with_parts(xlsx(), {SHEET: sheet("", BOMB).encode("utf-16")}))
add(
    "entity-bomb-ebcdic",
    "a.docx",
    lambda: with_parts(
        docx(), {WORDS: body(paragraph("&a9;"), BOMB).replace('"1.0"', '"1.0" encoding="cp037"').encode("cp037")}
    ),
)
add("entity-bomb-behind-comment", "a.docx", lambda: in_docx(paragraph("&a9;"), f"<!-- <w:p> -->{BOMB}"))
add("entity-bomb-behind-long-comment", "a.docx", lambda: in_docx(paragraph("&a9;"), f"<!-- {'x' * 100_000} -->{BOMB}"))
add("xxe-docx", "a.docx", lambda: in_docx(paragraph("&secret;"), XXE))
add(
    "xxe-xlsx", "a.xlsx", lambda: in_sheet('<row r="1"><c r="A1" t="inlineStr"><is><t>&secret;</t></is></c></row>', XXE)
)
add(
    "xxe-in-relations",
    "a.docx",
    lambda: with_parts(
        docx(),
        {
            "word/_rels/document.xml.rels": f'<?xml version="1.0"?>{XXE}<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">&secret;</Relationships>'
        },
    ),
)
add(
    "xxe-in-content-types",
    "a.pptx",
    lambda: with_parts(pptx(), {"[Content_Types].xml": f"{XXE}<Types>&secret;</Types>"}),
)
add(
    "parameter-entities",
    "a.docx",
    lambda: in_docx(paragraph("words"), '<!DOCTYPE b [<!ENTITY % x SYSTEM "http://127.0.0.1/x.dtd">%x;]>'),
)
add("encrypted-entry", "a.docx", lambda: _flagged(docx()))
add(
    "encrypted-package",
    "a.docx",
    lambda: make_compound({"EncryptedPackage": b"x" * 5_000, "EncryptionInfo": b"y" * 200}),
)
add("macro", "a.docm", lambda: with_parts(docx(), {"word/vbaProject.bin": OLE + b"Sub AutoOpen() Shell" * 50}))
add("cut-docx", "a.docx", lambda: docx()[:-500])
add("cut-xlsx", "a.xlsx", lambda: xlsx()[:1_500])
add("cut-pptx", "a.pptx", lambda: pptx()[:10_000])
add("cut-inside-an-entry", "a.docx", lambda: _holed(docx()))
add(
    "directory-alone",
    "a.docx",
    lambda: b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, 65_535, 65_535, 2**32 - 1, 2**32 - 1, 0),
)
add(
    "deep-tables",
    "a.docx",
    lambda: in_docx("<w:tbl><w:tr><w:tc>" * 20_000 + paragraph("x") + "</w:tc></w:tr></w:tbl>" * 20_000),
)
add("deep-elements-in-sheet", "a.xlsx", lambda: in_sheet("<row>" * 100_000 + "</row>" * 100_000))
add("open-equations", "a.docx", lambda: in_docx("<m:oMath>" * 60_000))
add("huge-picture", "a.docx", with_picture)
add(
    "outer-picture",
    "a.docx",
    lambda: in_docx(
        '<w:p><w:r><w:drawing><a:blip xmlns:a="http://schemas.openxmlformats.org/drawingml/2006/main" xmlns:r="http://schemas.openxmlformats.org/officeDocument/2006/relationships" r:link="rId99"/></w:drawing><w:t>Harmless words.</w:t></w:r></w:p>'
    ),
)
add("far-row", "a.xlsx", lambda: in_sheet('<row r="999999999999"><c r="A999999999999"><v>1</v></c></row>'))
add(
    "far-cells",
    "a.xlsx",
    lambda: in_sheet("".join(f'<row r="{n}"><c r="XFD{n}"><v>1</v></c></row>' for n in range(1, 2_000))),
)
add("wrong-shared-string", "a.xlsx", lambda: in_sheet('<row r="1"><c r="A1" t="s"><v>999999</v></c></row>'))
add(
    "formula-that-runs-programs",
    "a.xlsx",
    lambda: in_sheet('<row r="1"><c r="A1"><f>cmd|"/c calc"!A1</f><v>4</v></c></row>'),
)
add(
    "deep-groups",
    "a.pptx",
    lambda: in_slide(
        lambda xml: xml.replace("</p:spTree>", "<p:grpSp>" * 20_000 + "</p:grpSp>" * 20_000 + "</p:spTree>")
    ),
)
add(
    "slide-relates-to-itself",
    "a.pptx",
    lambda: with_parts(
        pptx(),
        {
            "ppt/slides/_rels/slide1.xml.rels": '<?xml version="1.0"?><Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships"><Relationship Id="rId1" Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/slideLayout" Target="slide1.xml"/></Relationships>'
        },
    ),
)


def overlapping() -> bytes:
    """An archive with many directory entries for the same compressed bytes."""
    data = zeros("word/document.xml", 20)
    start = data.index(b"PK\x01\x02")
    record, tail = data[start : data.index(b"PK\x05\x06")], data[data.index(b"PK\x05\x06") :]
    counts = struct.pack("<HH", 1_000, 1_000) + struct.pack("<I", len(record) * 1_000)
    return data[:start] + record * 1_000 + tail[:8] + counts + tail[16:]


def _flagged(data: bytes) -> bytes:
    changed = bytearray(data)
    changed[data.index(b"PK\x01\x02") + 8] |= 1
    return bytes(changed)


def _holed(data: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        place = archive.getinfo(WORDS).header_offset + 60
    return data[:place] + b"\xff" * 200 + data[place + 200 :]


add("overlapping-entries", "a.docx", overlapping)
