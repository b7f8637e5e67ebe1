"""Decoding bytes to characters, and the formats that are already text."""

import codecs
import re
import unicodedata

from charset_normalizer import from_bytes

from services.ingestion.domain import File, ParsedText, Rejected, RejectionReason, clean
from services.ingestion.formats.budget import Budget, RemovedKind

MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
CHARSET = re.compile(r"charset=[\"']?([\w.:-]+)", re.IGNORECASE)
CHARSET_NAME = re.compile(r"[\w.:-]{1,40}", re.ASCII)
# Python codecs that are not charsets of documents. One of them takes quadratic time.
NO_CHARSETS = frozenset({"idna", "punycode", "raw-unicode-escape", "unicode-escape", "undefined", "utf-7"})
# Of reStructuredText: targets of links, entries of an index, tables of contents, and directives for programs with their options.
MARKUP = re.compile(
    r"(?m)^[ \t]*\.\. (?:_[^\n]+:[^\n]*|(?:index|contents|highlight|module|currentmodule|default-domain)::[^\n]*(?:\n[ \t]+:[^\n]*)*"
    r"|toctree::[^\n]*(?:\n(?:[ \t]{2,}[^\n]+|(?=\n[ \t]{2,}\S)))*)(?:\n|\Z)"
)
SAMPLE_BYTES = 200_000
WIDE_SAMPLE_BYTES = 4096
# Text with larger shares of letters beyond ASCII is not Western European.
FOREIGN_SHARE, FOREIGN_SURE_SHARE = 0.07, 0.4
FOREIGN_LETTERS, FOREIGN_SURE_LETTERS = 32, 8


def decode(data: bytes, charset: str = "") -> str:
    """Decode by the byte-order mark, the position of zero bytes, the declared charset, as UTF-8, or by a guess, in this order.

    Raises Rejected (CORRUPT) if the text does not match its byte-order mark.
    """
    for mark, encoding in MARKS:
        if data.startswith(mark):
            return _strict(data, encoding) or _reject()
    for encoding in filter(None, (detect_wide(data), charset, "utf-8")):
        text = _strict(data, encoding)
        if text is not None:
            return text
    western = _strict(data, "cp1252") or _strict(data, "latin-1") or ""
    # In offices, most text that is neither declared nor UTF-8 is Windows-1252. A guess must not turn its letters into another script.
    if not _is_foreign(western[:SAMPLE_BYTES]):
        return western
    best = from_bytes(data[:SAMPLE_BYTES]).best()
    guess = _strict(data, best.encoding) if best is not None else None
    return western if guess is None else guess


def detect_wide(data: bytes) -> str:
    """The variant of UTF-16 or UTF-32, by byte-order mark or by the position of zero bytes; otherwise an empty string."""
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
    return next((name for name, fits in candidates.items() if fits and _is_plausible(sample, name)), "")


def declared_charset(content_type: str) -> str:
    """The charset in a content type, or an empty string."""
    match = CHARSET.search(content_type)
    return match[1] if match else ""


def parse_text(file: File, budget: Budget) -> ParsedText:
    """Plain text, cleaned, and without what reStructuredText has for programs only."""
    text = clean(decode(file.data, declared_charset(file.content_type)))
    left = MARKUP.sub("", text)
    if left != text:
        budget.removed[RemovedKind.MARKUP] += _count_solid(text) - _count_solid(left)
        text = clean(left)
    return ParsedText(text, "txt")


def _count_solid(text: str) -> int:
    return len("".join(text.split()))


def parse_markdown(file: File, budget: Budget) -> ParsedText:
    """Markdown, cleaned but otherwise unchanged."""
    del budget
    return ParsedText(clean(decode(file.data, declared_charset(file.content_type))), "md")


def _strict(data: bytes, encoding: str) -> str | None:
    try:
        if not CHARSET_NAME.fullmatch(encoding) or codecs.lookup(encoding).name in NO_CHARSETS:
            return None
        return data.decode(encoding)
    except (ValueError, LookupError):
        return None


def _is_plausible(sample: bytes, encoding: str) -> bool:
    """True if the sample is plausible text in this encoding."""
    text = _strict(sample[: len(sample) // 4 * 4] if len(sample) == WIDE_SAMPLE_BYTES else sample, encoding)
    if not text:
        return False
    bad = sum(unicodedata.category(letter) in ("Cc", "Cn", "Co", "Cs") for letter in text if letter not in "\t\r\n\f")
    return bad <= len(text) // 50


def _is_foreign(western: str) -> bool:
    """True if text decoded as Windows-1252 seems to be in another charset: too many accents, or signs inside words."""
    letters = sum(map(str.isalpha, western))
    accents = sum(letter.isalpha() and not letter.isascii() for letter in western)
    signs = len(re.findall(r"(?<=[^\W\d_])[¡-¥§-©«-±´¶-¹»-¿×÷‚„†‡ˆ‰‹›˜™](?=[^\W\d_])", western))
    share = accents / max(letters, 1)
    return (
        (share > FOREIGN_SHARE and accents >= FOREIGN_LETTERS)
        or (share > FOREIGN_SURE_SHARE and accents >= FOREIGN_SURE_LETTERS)
        or signs > max(2, letters // 100)
    )


def _reject() -> str:
    raise Rejected(RejectionReason.CORRUPT, "The text does not match its byte-order mark. Publish it as UTF-8.")
