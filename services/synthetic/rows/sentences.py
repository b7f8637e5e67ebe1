"""Where sentences end."""

import re

from services.synthetic.domain import Range
from services.synthetic.rows.lexicon import ABBREVIATIONS

_END = re.compile(r"[.!?…][\"”’»)\]]*(?P<gap>\s+)(?=[\"“„«(\[¿¡*_]*[^\W_a-zß-öø-ÿ])|[。！？](?P<none>)(?=.)")
_LAST_WORD = re.compile(r"(\S+)\Z")
_LOOK_BACK = 24
_INITIAL_OR_DAY = re.compile(r"(?:[^\W\d_]|\d{1,2}|(?:[^\W\d_]\.)+[^\W\d_])\Z")


def find_sentences(text: str, start: int, end: int) -> list[Range]:
    """The sentences of [start, end), without the blanks around them. Text without an end of a sentence is one sentence."""
    sentences: list[Range] = []
    for match in _END.finditer(text, start, end):
        group = "gap" if match["gap"] else "none"
        if group == "none" or not _is_abbreviated(text, start, match.start()):
            sentences.append((start, match.start(group)))
            start = match.end(group)
    if text[start:end].strip():
        sentences.append((start, end))
    return sentences


def _is_abbreviated(text: str, start: int, stop: int) -> bool:
    """True if the full stop at `stop` belongs to an abbreviation, an initial, a list's number or a day (`10. Juni`)."""
    if text[stop] != ".":
        return False
    match = _LAST_WORD.search(text[max(start, stop - _LOOK_BACK) : stop])
    word = match[1].lstrip('("“„«[*_') if match is not None else ""
    return word.lower() in ABBREVIATIONS or bool(_INITIAL_OR_DAY.fullmatch(word))
