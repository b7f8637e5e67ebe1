"""Where sentences end."""

import re

from services.synthetic.domain import Range
from services.synthetic.rows.lexicon import BEFORE_FIGURES, abbreviations

_END = re.compile(r"[.!?…][\"”’»)\]]*(?P<gap>\s+)(?=[\"“„«(\[¿¡*_]*[^\W_a-zß-öø-ÿ])|[。！？](?P<none>)(?=.)")
_LAST_WORD = re.compile(r"(\S+)\Z")
# Without what is written close before it: `Word,z.B.`, `(e.g.`, `bzw./z.B.`.
_LAST_ABBREVIATION = re.compile(r"[^\W_][\w.°-]*\Z")
_LOOK_BACK = 24
_INITIAL = re.compile(r"(?:[^\W\d_]|(?:[^\W\d_]\.)+[^\W\d_])\Z")
_DAY = re.compile(r"\d{1,2}\Z")
# They write `10 June`: after a number, a full stop ends a sentence unless the number begins it.
_WITHOUT_DAYS = ("en", "es", "fr", "it", "nl")


def find_sentences(text: str, start: int, end: int, language: str = "") -> list[Range]:
    """The sentences of [start, end), without the blanks around them. Text without an end of a sentence is one sentence."""
    sentences: list[Range] = []
    for match in _END.finditer(text, start, end):
        group = "gap" if match["gap"] else "none"
        if group == "none" or not _is_abbreviated(text, start, match.start(), text[match.end(group)], language):
            sentences.append((start, match.start(group)))
            start = match.end(group)
    if text[start:end].strip():
        sentences.append((start, end))
    return sentences


def ends_in_abbreviation(text: str, following: str, language: str = "") -> bool:
    """True if a text ends in the full stop of an abbreviation; `following` is the first character after it."""
    return text.endswith(".") and _is_abbreviated(text, 0, len(text) - 1, following, language)


def _is_abbreviated(text: str, start: int, stop: int, following: str, language: str) -> bool:
    """True if the full stop at `stop` belongs to an abbreviation, an initial, a list's number or a day (`10. Juni`)."""
    if text[stop] != ".":
        return False
    before = text[max(start, stop - _LOOK_BACK) : stop]
    match, short = _LAST_WORD.search(before), _LAST_ABBREVIATION.search(before)
    word = match[1].lstrip('("“„«[*_') if match is not None else ""
    names = {word.lower(), short[0].lower() if short else ""}
    if following.isdigit() and not names.isdisjoint(BEFORE_FIGURES):
        return True
    if _DAY.fullmatch(word):
        return language not in _WITHOUT_DAYS or not text[start : stop - len(word)].strip()
    return not names.isdisjoint(abbreviations(language)) or bool(_INITIAL.fullmatch(word))
