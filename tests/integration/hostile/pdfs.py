"""Malicious PDF files."""

import io
import random
import zlib
from collections.abc import Iterable

from reportlab.lib.pdfencrypt import StandardEncryption
from reportlab.pdfgen.canvas import Canvas

from tests.integration.hostile.collection import MIB, Files, adder

FILES: Files = {}
add = adder(FILES)


def pdf(objects: Iterable[str | bytes], trailer: str = "") -> bytes:
    """A PDF with these objects, numbered from 1. The first is the catalogue."""
    data, places = bytearray(b"%PDF-1.7\n"), []
    for number, content in enumerate(objects, 1):
        places.append(len(data))
        data += (
            f"{number} 0 obj\n".encode() + (content.encode() if isinstance(content, str) else content) + b"\nendobj\n"
        )
    start = len(data)
    data += f"xref\n0 {len(places) + 1}\n0000000000 65535 f \n".encode()
    data += b"".join(f"{place:010d} 00000 n \n".encode() for place in places)
    data += f"trailer\n<< /Size {len(places) + 1} /Root 1 0 R {trailer} >>\nstartxref\n{start}\n%%EOF\n".encode()
    return bytes(data)


CATALOGUE, PAGES = "<< /Type /Catalog /Pages 2 0 R >>", "<< /Type /Pages /Kids [3 0 R] /Count 1 >>"
FONT = "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>"


def page(more: str = "") -> str:
    return f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 600 800] /Contents 4 0 R /Resources << /Font << /F 5 0 R >> {more} >> >>"


def stream(content: bytes, more: str = "") -> bytes:
    return f"<< /Length {len(content)} {more} >>\nstream\n".encode() + content + b"\nendstream"


def packed(layers: int, mib: int) -> bytes:
    packer, content = zlib.compressobj(9), bytearray()
    for _ in range(mib):
        content += packer.compress(b" " * MIB)
    content += packer.flush()
    for _ in range(layers - 1):
        content = bytearray(zlib.compress(bytes(content), 9))
    return stream(bytes(content), f"/Filter [{'/FlateDecode ' * layers}]")


def drawn(content: bytes, more: str = "", font: str = FONT, *others: str | bytes) -> bytes:
    return pdf([CATALOGUE, PAGES, page(more), content if b"stream" in content else stream(content), font, *others])


def encrypted_pdf() -> bytes:
    buffer = io.BytesIO()
    canvas = Canvas(buffer, encrypt=StandardEncryption("secret", canPrint=0))
    canvas.drawString(100, 100, "words")
    canvas.save()
    return buffer.getvalue()


TEXT = b"BT /F 12 Tf 100 700 Td (Harmless words.) Tj ET"
add("pdf-encrypted", "a.pdf", encrypted_pdf)
add("pdf-cut", "a.pdf", lambda: drawn(TEXT)[:-60])
add("pdf-noise", "a.pdf", lambda: b"%PDF-1.7\n" + random.Random(1).randbytes(200_000) + b"%%EOF")
add("pdf-pages-loop", "a.pdf", lambda: pdf([CATALOGUE, "<< /Type /Pages /Kids [2 0 R 2 0 R] /Count 2 >>"]))
add(
    "pdf-pages-mutual-loop",
    "a.pdf",
    lambda: pdf(
        [
            CATALOGUE,
            "<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
            "<< /Type /Pages /Kids [2 0 R] /Count 1 /Parent 3 0 R >>",
        ]
    ),
)
add(
    "pdf-pages-fan",
    "a.pdf",
    lambda: pdf(
        [CATALOGUE, *(f"<< /Type /Pages /Kids [{f'{n + 1} 0 R ' * 10}] /Count 10 >>" for n in range(2, 12)), page()]
    ),
)
add(
    "pdf-many-pages",
    "a.pdf",
    lambda: pdf(
        [
            CATALOGUE,
            f"<< /Type /Pages /Kids [{' '.join(f'{n} 0 R' for n in range(6, 2_600))}] /Count 999999999 >>",
            "<<>>",
            stream(b""),
            FONT,
            *[page()] * 2_600,
        ]
    ),
)
add("pdf-xref-loop", "a.pdf", lambda: drawn(TEXT).replace(b"/Root", b"/Prev %d /Root" % drawn(TEXT).index(b"xref")))
add("pdf-xref-far", "a.pdf", lambda: drawn(TEXT).replace(b"xref\n0 6", b"xref\n0 999999999"))
add("pdf-startxref-nowhere", "a.pdf", lambda: drawn(TEXT).replace(b"startxref\n", b"startxref\n9999999"))
add("pdf-stream-bomb", "a.pdf", lambda: drawn(packed(1, 200)))
add("pdf-layered-bomb", "a.pdf", lambda: drawn(packed(3, 200)))
add("pdf-expands-a-little", "a.pdf", lambda: drawn(stream(zlib.compress(b"q Q " * 5_000_000), "/Filter /FlateDecode")))
add("pdf-deep-arrays", "a.pdf", lambda: drawn(TEXT, f"/X {'[' * 100_000}{']' * 100_000}"))
add("pdf-deep-dictionaries", "a.pdf", lambda: drawn(TEXT, "/X " + "<< /X " * 50_000 + "1" + " >>" * 50_000))
add("pdf-deep-content", "a.pdf", lambda: drawn(b"[" * 200_000))
add(
    "pdf-form-in-itself",
    "a.pdf",
    lambda: drawn(
        b"/G Do",
        "/XObject << /G 6 0 R >>",
        FONT,
        stream(
            b"/G Do /G Do", "/Type /XObject /Subtype /Form /BBox [0 0 9 9] /Resources << /XObject << /G 6 0 R >> >>"
        ),
    ),
)
add("pdf-length-of-itself", "a.pdf", lambda: drawn(TEXT).replace(b"/Length 46", b"/Length 4 0 R"))
add(
    "pdf-font-names-a-file",
    "a.pdf",
    lambda: drawn(
        TEXT,
        "",
        "<< /Type /Font /Subtype /Type0 /BaseFont /X /Encoding /..#2F..#2F..#2Fetc#2Fpasswd /DescendantFonts [<< /Type /Font /Subtype /CIDFontType2 /BaseFont /X /CIDSystemInfo << /Registry (a) /Ordering (b) >> >>] >>",
    ),
)
add(
    "pdf-huge-picture",
    "a.pdf",
    lambda: drawn(
        TEXT,
        "/XObject << /I 6 0 R >>",
        FONT,
        stream(
            b"x",
            "/Type /XObject /Subtype /Image /Width 2147483647 /Height 2147483647 /BitsPerComponent 8 /ColorSpace /DeviceRGB",
        ),
    ),
)
add(
    "pdf-script",
    "a.pdf",
    lambda: drawn(TEXT).replace(
        b"/Type /Catalog", b"/Type /Catalog /OpenAction << /S /JavaScript /JS (app.launchURL\\(1\\)) >>"
    ),
)
add(
    "pdf-crowded-page",
    "a.pdf",
    lambda: drawn(
        stream(
            zlib.compress(
                b"BT /F 1 Tf "
                + b"".join(b"1 0 0 1 %d %d Tm (a) Tj " % (n * 7919 % 599, n * 104729 % 799) for n in range(60_000))
                + b"ET"
            ),
            "/Filter /FlateDecode",
        )
    ),
)
