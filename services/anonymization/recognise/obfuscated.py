"""Undoing what hides values: invisible and full-width characters, unusual spaces and hyphens, marks over letters, lookalike letters,
entities, markup within words, words that break over lines.

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
    "АВЕКМНОРСТУХЅІЈԌавекорсухѕіјԁһӏԛԝΑΒΕΖΗΙΚΜΝΟΡΤΥΧονικαρυ", "ABEKMHOPCTYXSIJGabekopcyxsijdhlqwABEZHIKMNOPTYXovikapu"
)
# Escaped up to three times.
ENTITY = re.compile(r"&(?:amp;){0,2}(?:#0{0,9}\d{1,7}|#[xX]0{0,9}[0-9a-fA-F]{1,6}|[a-zA-Z][a-zA-Z0-9]{1,30});")
MAX_ESCAPES = 3
SOFT_HYPHEN = "\xad"
LINE_END = re.compile(r"\r\n|[\r\v\f\x85\u2028\u2029]")
# A line that breaks within a word; a visible hyphen stays if the next part begins with a capital letter, as in double names.
BROKEN = re.compile(rf"(?<=[^\W\d_])[-\xad\u2010\u2011][ \t]*(?:\n|{LINE_END.pattern})[ \t>]*(?=[^\W\d_])")
# Emphasis and inline tags, at and within words, and Markdown's escapes in mail addresses. `*1984` is a birth, and `2**3` a power.
INLINE_TAG = r"</?(?:b|i|u|s|em|strong|span|font|mark|small|sub|sup|wbr)(?:\s[^<>\n]{0,200})?/?>"
MARKUP = re.compile(
    rf"{INLINE_TAG}|~~(?=\w)|(?<=\w)~~|(?<=\w)\*{{1,3}}(?=[^\W\d_])"
    r"|(?<![\w*])(?:\*{2,3}(?=\w)|\*(?=[^\W\d_]))|(?<=[^\W_])\*{1,3}(?![\w*])"
    r"|(?<![\w_])_{1,2}(?=[^\W\d_][^_\n]{0,200}_{1,2}(?!\w))|(?<=[^\W_])_{1,2}(?!\w)"
    r"|(?<=[^\W\d])\\(?=[_*@.-]\w)"
)
# Line breaks and tabs that were written out by a pipeline.
WRITTEN_OUT = re.compile(r"\\[nrt](?![a-z])")
WORD = re.compile(r"\w+")
# Nothing to undo in a text of these characters without any of the forms above.
PLAIN = re.compile(r"[\t\n -~£€§°–—‘’“”…•·À-ÖØ-öø-ž]*")
FORMS = (ENTITY, BROKEN, WRITTEN_OUT, MARKUP, LINE_END)
ANY_FORM = re.compile("|".join(form.pattern for form in FORMS))
COMBINING = {"Mn", "Me"}
# Composing takes time quadratic in the marks on one letter, and no script needs more.
MAX_MARKS = 30
# Not of the category of invisible characters (Cf): the joiner of graphemes, fillers, an empty pattern of Braille, selectors of variants.
INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]+"
)
HYPHENS = frozenset("\u2010\u2011\u2212")
# Compatibility forms of letters within a circle or a square. Those of digits number lists.
FRAMED = ("<circle>", "<square>")


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
    if PLAIN.fullmatch(text) and not ANY_FORM.search(text):
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
    for match in ANY_FORM.finditer(text):
        yield from _characters(text, start, match.start())
        yield match.start(), match.end(), _read(match[0], text[match.end() : match.end() + 1])
        start = match.end()
    yield from _characters(text, start, len(text))


def _read(form: str, following: str) -> str:
    """The reading of a form before the given character."""
    if form[0] == "&":
        return "".join(_usual(character) for character in _unescape(form))
    if form[0] == "\\":
        return {"n": " \n", "r": " \n", "t": " \t"}.get(form[1:], "")
    if form[0] in "*_~<":
        return ""
    if LINE_END.fullmatch(form):
        return "\n"
    return "-" if following.isupper() and form[0] != SOFT_HYPHEN else ""


def _unescape(form: str) -> str:
    for _ in range(MAX_ESCAPES):
        form = html.unescape(form)
    return form


def _characters(text: str, start: int, end: int) -> Iterator[tuple[int, int, str]]:
    """The characters of [start, end): compatibility forms as usual ones, letters with their combining marks as one, no invisible ones."""
    place = start
    while place < end:
        last = place + 1
        while last < end and unicodedata.category(text[last]) in COMBINING:
            last += 1
        yield place, last, _usual(text[place : min(last, place + 1 + MAX_MARKS)])
        place = last


@lru_cache(maxsize=4_096)
def _usual(character: str) -> str:
    """A character, with its combining marks, as recognisers know it."""
    character = INVISIBLE.sub("", character)
    category = unicodedata.category(character[0]) if character else "Cf"
    if category == "Cf":
        return ""
    if category == "Zs":
        return " "
    if category == "Nd":
        return str(unicodedata.digit(character[0]))
    if character[0] in HYPHENS:
        return "-"
    # Superscripts, fractions and signs such as the trade mark stay: they would join the word before them.
    is_variant = "\uff01" <= character[0] <= "\uff5e" or "\ufe50" <= character[0] <= "\ufe6b"
    if category[0] == "L" or is_variant or _is_framed_letter(character[0]):
        character = unicodedata.normalize("NFKC", character)
    return _without_marks(character)


def _is_framed_letter(character: str) -> bool:
    form = unicodedata.decomposition(character)
    return form.startswith(FRAMED) and unicodedata.normalize("NFKC", character).isalpha()


def _without_marks(character: str) -> str:
    """A sign or a Latin letter without the marks that strike it out or frame it. Other scripts need theirs."""
    if len(character) == 1 or not (character[0].isascii() or unicodedata.name(character[0], "").startswith("LATIN")):
        return character
    return "".join(sign for sign in character if unicodedata.category(sign) not in COMBINING)


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
