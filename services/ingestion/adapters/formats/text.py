"""Bytes to characters, and the formats that are text already."""

import codecs
import re
import unicodedata

from charset_normalizer import from_bytes

from services.ingestion.adapters.formats.budget import Budget
from services.ingestion.domain import File, Parsed, Rejected, RejectionReason, clean

MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
CHARSET = re.compile(r"charset=[\"']?([\w.:-]+)", re.IGNORECASE)
CHARSET_NAME = re.compile(r"[\w.:-]{1,40}", re.ASCII)
# Codecs of Python that are no charsets of documents; one of them takes quadratic time.
NO_CHARSETS = frozenset({"idna", "punycode", "raw-unicode-escape", "unicode-escape", "undefined", "utf-7"})
SAMPLE_BYTES = 200_000
WIDE_SAMPLE_BYTES = 4096
# Above these shares of letters beyond ASCII, text is not of Western Europe.
FOREIGN_SHARE, FOREIGN_SURE_SHARE = 0.07, 0.4
FOREIGN_LETTERS, FOREIGN_SURE_LETTERS = 32, 8


def decode(data: bytes, charset: str = "") -> str:
    """The characters: by byte-order mark, as declared, as UTF-8, by its zero bytes, or as they look; Rejected where nothing fits."""
    for mark, encoding in MARKS:
        if data.startswith(mark):
            return _strict(data, encoding) or _refuse()
    for encoding in filter(None, (wide(data), charset, "utf-8")):
        text = _strict(data, encoding)
        if text is not None:
            return text
    western = _strict(data, "cp1252") or _strict(data, "latin-1") or ""
    # Most of what is neither declared nor UTF-8 in offices is Windows-1252; a guess must not turn its letters into other scripts.
    if not _is_foreign(western[:SAMPLE_BYTES]):
        return western
    best = from_bytes(data[:SAMPLE_BYTES]).best()
    guess = _strict(data, best.encoding) if best is not None else None
    return western if guess is None else guess


def wide(data: bytes) -> str:
    """The name of UTF-16 or UTF-32 where the bytes are such, with a byte-order mark or by where zeros stand; otherwise an empty string."""
    sample = data[:WIDE_SAMPLE_BYTES]
    for mark, encoding in MARKS[1:]:
        if data.startswith(mark):
            return encoding
    zeros = [sample[place::4].count(0) for place in range(4)]
    quarter = len(sample) // 4
    candidates = {
        "utf-32-le": quarter > 0 and zeros[3] == quarter and zeros[0] == 0,
        "utf-32-be": quarter > 0 and zeros[0] >= quarter and zeros[3] == 0,
        "utf-16-le": zeros[1] + zeros[3] > 0 and zeros[0] + zeros[2] == 0,
        "utf-16-be": zeros[0] + zeros[2] > 0 and zeros[1] + zeros[3] == 0,
    }
    return next((name for name, fits in candidates.items() if fits and _reads(sample, name)), "")


def declared(content_type: str) -> str:
    """The charset of a content type, or an empty string."""
    match = CHARSET.search(content_type)
    return match[1] if match else ""


def parse_text(file: File, budget: Budget) -> Parsed:
    """Plain text as it is."""
    del budget
    return Parsed(clean(decode(file.data, declared(file.content_type))), "txt")


def parse_markdown(file: File, budget: Budget) -> Parsed:
    """Markdown as it is."""
    del budget
    return Parsed(clean(decode(file.data, declared(file.content_type))), "md")


def _strict(data: bytes, encoding: str) -> str | None:
    try:
        if not CHARSET_NAME.fullmatch(encoding) or codecs.lookup(encoding).name in NO_CHARSETS:
            return None
        return data.decode(encoding)
    except (ValueError, LookupError):
        return None


def _reads(sample: bytes, encoding: str) -> bool:
    """True where the sample is words in this encoding."""
    text = _strict(sample[: len(sample) // 4 * 4] if len(sample) == WIDE_SAMPLE_BYTES else sample, encoding)
    if not text:
        return False
    bad = sum(unicodedata.category(letter) in ("Cc", "Cn", "Co", "Cs") for letter in text if letter not in "\t\r\n\f")
    return bad <= len(text) // 50


def _is_foreign(western: str) -> bool:
    """True where text read as Windows-1252 looks like another charset: too many accents, or signs inside words."""
    letters = sum(map(str.isalpha, western))
    accents = sum(letter.isalpha() and not letter.isascii() for letter in western)
    signs = len(re.findall(r"(?<=[^\W\d_])[¡-¥§-©«-±´¶-¹»-¿×÷‚„†‡ˆ‰‹›˜™](?=[^\W\d_])", western))
    share = accents / max(letters, 1)
    return (
        (share > FOREIGN_SHARE and accents >= FOREIGN_LETTERS)
        or (share > FOREIGN_SURE_SHARE and accents >= FOREIGN_SURE_LETTERS)
        or signs > max(2, letters // 100)
    )


def _refuse() -> str:
    raise Rejected(RejectionReason.CORRUPT, "The text's encoding cannot be told; publish it as UTF-8.")
