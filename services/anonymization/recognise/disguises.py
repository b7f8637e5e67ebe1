"""Undoing what hides values: invisible and full-width characters, lookalike letters, entities, words that break over lines.

Recognition reads the plain text; findings are moved back to their places in the text as it was given, so that no other character changes.
"""

import html
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache

# Letters of other alphabets that look like Latin ones, as pairs (Unicode Technical Standard 39, the part that names can be written with).
LOOKALIKES = str.maketrans(
    "АВЕКМНОРСТУХЅІЈԌавекорсухѕіјԁһӏԛԝΑΒΕΖΗΙΚΜΝΟΡΤΥΧονικαρυ",
    "ABEKMHOPCTYXSIJGabekopcyxsijdhlqwABEZHIKMNOPTYXovikapu",
)
ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[a-zA-Z][a-zA-Z0-9]{1,30});")
# A line that breaks within a word; the hyphen stays if the next part begins with a capital letter, as in double names.
BROKEN = re.compile(r"(?<=[^\W\d_])-[ \t]*\n[ \t>]*(?=[^\W\d_])")
# Line breaks and tabs that were written out by a programme.
WRITTEN_OUT = re.compile(r"\\[nrt](?![a-z])")
WORD = re.compile(r"\w+")
# Nothing to undo in a text of these characters without any of the forms above.
PLAIN = re.compile(r"[\t\n\r -~£€§°–—‘’“”…•·À-ÖØ-öø-ž]*")
COMBINING = "Mn"


@dataclass(frozen=True)
class PlainText:
    """A text for recognition, and where its characters come from.

    `_starts[i]` and `_ends[i]` are the place of the i-th character in the text as it was given; both are empty if nothing was undone.
    """

    text: str
    _starts: tuple[int, ...] = field(default=(), repr=False)
    _ends: tuple[int, ...] = field(default=(), repr=False)

    def place(self, start: int, end: int) -> tuple[int, int]:
        """The place in the text as it was given of a stretch [start, end) that is not empty."""
        if not self._starts:
            return start, end
        return self._starts[start], self._ends[end - 1]


def undo(text: str) -> PlainText:
    """The text as recognisers should read it."""
    if PLAIN.fullmatch(text) and not (ENTITY.search(text) or BROKEN.search(text) or WRITTEN_OUT.search(text)):
        return PlainText(text)
    characters, starts, ends = [], [], []
    for start, end, plain in _pieces(text):
        for character in plain:
            characters.append(character)
            starts.append(start)
            ends.append(end)
    joined = _replace_lookalikes("".join(characters))
    if joined == text:
        return PlainText(text)
    return PlainText(joined, tuple(starts), tuple(ends))


def _pieces(text: str) -> Iterator[tuple[int, int, str]]:
    """Each part of the text with what it is read as."""
    start = 0
    for match in re.finditer("|".join(form.pattern for form in (ENTITY, BROKEN, WRITTEN_OUT)), text):
        yield from _characters(text, start, match.start())
        yield match.start(), match.end(), _read(match[0], text[match.end() : match.end() + 1])
        start = match.end()
    yield from _characters(text, start, len(text))


def _read(form: str, following: str) -> str:
    if form[0] == "&":
        plain = html.unescape(form)
        return "" if plain == "\xad" else plain
    if form[0] == "\\":
        return " \n" if form[1] != "t" else " \t"
    return "-" if following.isupper() else ""


def _characters(text: str, start: int, end: int) -> Iterator[tuple[int, int, str]]:
    """The characters of [start, end): compatibility forms as usual ones, letters with their combining marks as one, no invisible ones."""
    place = start
    while place < end:
        last = place + 1
        while last < end and unicodedata.category(text[last]) == COMBINING:
            last += 1
        yield place, last, _usual(text[place:last])
        place = last


@lru_cache(maxsize=4_096)
def _usual(character: str) -> str:
    category = unicodedata.category(character[0])
    if category == "Cf":
        return ""
    # Superscripts, fractions and signs such as the trade mark stay: they would join the word before them.
    is_full_width = "\uff01" <= character[0] <= "\uff5e"
    return (
        unicodedata.normalize("NFKC", character)
        if category[0] == "L" or category == "Nd" or is_full_width
        else character
    )


def _replace_lookalikes(text: str) -> str:
    """Words that mix Latin letters with lookalikes, in Latin letters."""
    if text.isascii():
        return text
    return WORD.sub(lambda match: _as_latin(match[0]), text)


def _as_latin(word: str) -> str:
    if word.isascii():
        return word
    plain = word.translate(LOOKALIKES)
    has_latin = any("a" <= letter.lower() <= "z" for letter in word)
    return plain if has_latin and plain.isascii() else word
