"""Bytes to characters, and the formats that are text already."""

import codecs
import json
import re

from charset_normalizer import from_bytes

from services.ingestion.domain import File, Parsed, Reason, Rejected, clean, malformed

MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
CHARSET = re.compile(r"charset=[\"']?([\w.:-]+)", re.IGNORECASE)
SAMPLE_BYTES = 200_000


def decode(data: bytes, charset: str = "") -> str:
    """The characters: by byte-order mark, as declared, as UTF-8, or as they look; Rejected where nothing fits."""
    for mark, encoding in MARKS:
        if data.startswith(mark):
            return _strict(data, encoding) or _refuse()
    for encoding in filter(None, (charset, "utf-8")):
        text = _strict(data, encoding)
        if text is not None:
            return text
    best = from_bytes(data[:SAMPLE_BYTES]).best()
    guess = _strict(data, best.encoding) if best is not None else None
    western = _strict(data, "cp1252")
    # Most of what is neither declared nor UTF-8 in offices is Windows-1252; a guess must not turn its letters into other scripts.
    if western is not None and (guess is None or sum(map(_is_western, western)) >= sum(map(_is_western, guess))):
        return western
    return guess if guess is not None else _refuse()


def declared(content_type: str) -> str:
    """The charset of a content type, or an empty string."""
    match = CHARSET.search(content_type)
    return match[1] if match else ""


def parse_text(file: File) -> Parsed:
    """Plain text as it is."""
    return Parsed(clean(decode(file.data, declared(file.content_type))), "txt")


def parse_markdown(file: File) -> Parsed:
    """Markdown as it is."""
    return Parsed(clean(decode(file.data, declared(file.content_type))), "md")


def parse_example(file: File) -> Parsed:
    """A JSON object of prompt and answer."""
    try:
        content = json.loads(decode(file.data))
    except (ValueError, RecursionError):
        raise Rejected(Reason.CORRUPT, "The JSON cannot be read; check it with a JSON linter.", "json") from None
    if (
        not isinstance(content, dict)
        or content.pop("kind", "example") != "example"
        or set(content) != {"prompt", "answer"}
    ):
        raise malformed("A JSON file holds an example: an object of prompt and answer.")
    if not all(isinstance(part, str) for part in content.values()):
        raise malformed("Prompt and answer of an example are strings.")
    prompt = clean(content["prompt"]).strip()
    if not prompt:
        raise malformed("The prompt of an example is empty.")
    return Parsed(clean(content["answer"]), "json", prompt)


def _strict(data: bytes, encoding: str) -> str | None:
    try:
        return data.decode(encoding)
    except (UnicodeError, LookupError):
        return None


def _is_western(letter: str) -> bool:
    return letter.isascii() or letter in "äöüÄÖÜßéèêëàâáåãçîïíìôóòõøúùûñæœÉÈÀÂÅÇÎÔÓØÚÑÆŒ€£§°–—’‘“”„«»…·½²³ "


def _refuse() -> str:
    raise Rejected(Reason.CORRUPT, "The text's encoding cannot be told; publish it as UTF-8.")
