"""Replaces surrogates in an answer by the prompt's personal values, piece by piece. A surrogate may be split across pieces."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from tailor.thoughts import count_possible

NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?")
ESCAPE = re.compile(r"\\(?:u[0-9a-fA-F]{4}|[^u])", re.DOTALL)
LONGEST_ESCAPE = 6
# Stands for the quotation marks around a JSON string, which are not characters of the string.
EDGE = "\0"
# Scripts of Asia that write words without spaces begin here.
SPACELESS = "\u2e80"


class TextPart(NamedTuple):
    """Characters as the model wrote them, and as the caller gets them."""

    model_text: str
    text: str


class Restorer:
    """Replaces surrogates that are whole words, the longest first. With `is_json` the text is JSON and stays valid JSON."""

    def __init__(self, pairs: Mapping[str, str], *, is_json: bool = False) -> None:
        self._values = dict(pairs)
        self._by_first: dict[str, list[str]] = {}
        for surrogate in sorted(pairs, key=len, reverse=True):
            self._by_first.setdefault(surrogate[0], []).append(surrogate)
        self._is_json = is_json
        self._in_string = False
        self._before = ""
        # Characters that are held back, as the model spelt them and what each means, and the start of an escape.
        self._spelt: list[str] = []
        self._meant = ""
        self._escape = ""

    def add(self, text: str) -> list[TextPart]:
        """Add characters, and return what is certain by now. The start of a possible surrogate is held back."""
        self._read(text)
        return self._release(is_whole=False)

    def rest(self) -> list[TextPart]:
        """Return what was held back, when no more characters follow."""
        parts = self._release(is_whole=True)
        unfinished, self._escape = self._escape, ""
        return [*parts, TextPart(unfinished, unfinished)] if unfinished else parts

    def _read(self, text: str) -> None:
        if not self._is_json:
            self._spelt += text
            self._meant += text
            return
        text = self._escape + text
        position = 0
        while position < len(text):
            escape = ESCAPE.match(text, position)
            if text[position] == "\\" and escape is None and len(text) - position < LONGEST_ESCAPE:
                break
            spelling = escape[0] if escape else text[position]
            self._spelt.append(spelling)
            self._meant += _meaning(spelling)
            position += len(spelling)
        self._escape = text[position:]

    def _release(self, *, is_whole: bool) -> list[TextPart]:
        parts: list[TextPart] = []
        plain, position = "", 0
        while position < len(self._meant):
            surrogate = self._find_surrogate(position, is_whole=is_whole)
            if surrogate is None:
                break
            end = position + (len(surrogate) or 1)
            model_text = "".join(self._spelt[position:end])
            value = self._spell_value(surrogate) if surrogate else None
            if value is None:
                plain += model_text
            else:
                parts += [TextPart(plain, plain)] * bool(plain) + [TextPart(model_text, value)]
                plain = ""
            if self._is_json and model_text == '"':
                self._in_string = not self._in_string
            self._before, position = self._meant[end - 1], end
        self._spelt, self._meant = self._spelt[position:], self._meant[position:]
        return [*parts, TextPart(plain, plain)] if plain else parts

    def _find_surrogate(self, position: int, *, is_whole: bool) -> str | None:
        """The surrogate at a position, empty for none; None as long as more characters are needed to decide."""
        before = self._meant[position - 1] if position else self._before
        for surrogate in self._by_first.get(self._meant[position], ()):
            if _is_within_word(before, surrogate[0]):
                continue
            end = position + len(surrogate)
            if self._meant.startswith(surrogate, position):
                after = self._meant[end : end + 1]
                if not after and not is_whole and _is_word(surrogate[-1]):
                    return None
                if not _is_within_word(surrogate[-1], after):
                    return surrogate
            elif not is_whole and end > len(self._meant) and surrogate.startswith(self._meant[position:]):
                return None
        return ""

    def _spell_value(self, surrogate: str) -> str | None:
        """The value as it is spelt at this position; None if it cannot be part of the JSON here."""
        value = self._values[surrogate]
        if not self._is_json:
            return value
        if self._in_string:
            return json.dumps(value, ensure_ascii=False)[1:-1]
        return value if NUMBER.fullmatch(value) else None


class StopTexts:
    """Ends an answer at the first stop text in what the caller gets, not in what the model wrote."""

    def __init__(self, stop: Iterable[str]) -> None:
        self._stop = tuple(stop)
        self._pending: list[TextPart] = []

    def add(self, parts: Sequence[TextPart], *, is_last: bool) -> tuple[list[TextPart], bool]:
        """Return the parts before any stop text that are certain by now, and True if a stop text was reached."""
        pending = [*self._pending, *parts]
        text = "".join(part.text for part in pending)
        positions = [position for position in (text.find(stop) for stop in self._stop) if position >= 0]
        if positions:
            return cut(pending, min(positions))[0], True
        certain, self._pending = cut(pending, len(text) - (0 if is_last else count_possible(text, self._stop)))
        return certain, False


def cut(parts: Iterable[TextPart], end: int) -> tuple[list[TextPart], list[TextPart]]:
    """Cut the parts at a position of the caller's text. The surrogate of a value that is cut stays with the value's beginning."""
    before, after = [], []
    for part in parts:
        length = len(part.text)
        if end >= length:
            before.append(part)
        elif end <= 0:
            after.append(part)
        else:
            is_plain = part.model_text == part.text
            before.append(TextPart(part.model_text[:end] if is_plain else part.model_text, part.text[:end]))
            after.append(TextPart(part.model_text[end:] if is_plain else "", part.text[end:]))
        end = max(0, end - length)
    return before, after


def add_spellings(pairs: Mapping[str, str], texts: Iterable[str]) -> dict[str, str]:
    """The pairs, and the capitalised spellings in which a model may write a surrogate, unless the prompt's own texts contain them."""
    prompt = "\n".join(texts)
    spellings = dict(pairs)
    for surrogate, value in pairs.items():
        others = [(surrogate.upper(), value.upper()), (_capitalise(surrogate), _capitalise(value))]
        if any(letter.isdigit() or letter == "@" for letter in surrogate):
            # A name in small letters may be a common word; an address or a number is not.
            others.append((surrogate.lower(), value.lower()))
        for spelling, meaning in others:
            if len(spelling) > 1 and spelling not in prompt:
                spellings.setdefault(spelling, meaning)
    return spellings


def _capitalise(text: str) -> str:
    return text[:1].upper() + text[1:]


def _meaning(spelling: str) -> str:
    if spelling == '"':
        return EDGE
    if len(spelling) == 1:
        return spelling
    try:
        return str(json.loads(f'"{spelling}"'))
    except ValueError:
        return spelling[-1]


def _is_word(letter: str) -> bool:
    return (letter.isalnum() or letter == "_") and letter < SPACELESS


def _is_within_word(before: str, after: str) -> bool:
    """True if two neighbouring characters belong to one word: two letters, or two digits."""
    within = bool(before and after) and _is_word(before) and _is_word(after)
    return within and before.isdigit() == after.isdigit()
