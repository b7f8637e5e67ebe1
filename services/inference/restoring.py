"""Surrogates out of an answer, and the values of the prompt into it, as the words come. A surrogate may be cut over several pieces."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?")
ESCAPE = re.compile(r"\\(?:u[0-9a-fA-F]{4}|[^u])", re.DOTALL)
LONGEST_ESCAPE = 6
# What ends or begins a string of JSON is no character of it.
EDGE = "\0"
# From here on are the scripts of Asia that write words without spaces between them.
SPACELESS = "\u2e80"


class Part(NamedTuple):
    """Characters as the model wrote them, and as the caller gets them."""

    seen: str
    told: str


class Restorer:
    """Puts values where their surrogates stand as whole words, the longest first. With `is_json` the text is JSON, and stays it."""

    def __init__(self, pairs: Mapping[str, str], *, is_json: bool = False) -> None:
        self._values = dict(pairs)
        self._by_first: dict[str, list[str]] = {}
        for surrogate in sorted(pairs, key=len, reverse=True):
            self._by_first.setdefault(surrogate[0], []).append(surrogate)
        self._is_json = is_json
        self._in_string = False
        self._before = ""
        # What is not handed on: characters as written, what each means, and the beginning of an escape.
        self._written: list[str] = []
        self._meant = ""
        self._open = ""

    def add(self, text: str) -> list[Part]:
        """Take characters in; what can be handed on now. What may still become a surrogate is held back."""
        self._read(text)
        return self._hand_on(is_whole=False)

    def rest(self) -> list[Part]:
        """What was held back, once no more characters come."""
        parts = self._hand_on(is_whole=True)
        unfinished, self._open = self._open, ""
        return [*parts, Part(unfinished, unfinished)] if unfinished else parts

    def _read(self, text: str) -> None:
        if not self._is_json:
            self._written += text
            self._meant += text
            return
        text = self._open + text
        place = 0
        while place < len(text):
            escape = ESCAPE.match(text, place)
            if text[place] == "\\" and escape is None and len(text) - place < LONGEST_ESCAPE:
                break
            written = escape[0] if escape else text[place]
            self._written.append(written)
            self._meant += _meaning(written)
            place += len(written)
        self._open = text[place:]

    def _hand_on(self, *, is_whole: bool) -> list[Part]:
        parts: list[Part] = []
        plain, place = "", 0
        while place < len(self._meant):
            surrogate = self._at(place, is_whole=is_whole)
            if surrogate is None:
                break
            end = place + (len(surrogate) or 1)
            seen = "".join(self._written[place:end])
            told = self._spelt(surrogate) if surrogate else None
            if told is None:
                plain += seen
            else:
                parts += [Part(plain, plain)] * bool(plain) + [Part(seen, told)]
                plain = ""
            if self._is_json and seen == '"':
                self._in_string = not self._in_string
            self._before, place = self._meant[end - 1], end
        self._written, self._meant = self._written[place:], self._meant[place:]
        return [*parts, Part(plain, plain)] if plain else parts

    def _at(self, place: int, *, is_whole: bool) -> str | None:
        """The surrogate that stands at a place, empty for none; None while that cannot be told."""
        before = self._meant[place - 1] if place else self._before
        for surrogate in self._by_first.get(self._meant[place], ()):
            if _joins(before, surrogate[0]):
                continue
            end = place + len(surrogate)
            if self._meant.startswith(surrogate, place):
                after = self._meant[end : end + 1]
                if not after and not is_whole and _is_word(surrogate[-1]):
                    return None
                if not _joins(surrogate[-1], after):
                    return surrogate
            elif not is_whole and end > len(self._meant) and surrogate.startswith(self._meant[place:]):
                return None
        return ""

    def _spelt(self, surrogate: str) -> str | None:
        """The value as it is written here; None where it cannot be."""
        value = self._values[surrogate]
        if not self._is_json:
            return value
        if self._in_string:
            return json.dumps(value, ensure_ascii=False)[1:-1]
        return value if NUMBER.fullmatch(value) else None


class Stops:
    """Ends an answer where its caller wants that: by what the caller gets, not by what the model wrote."""

    def __init__(self, stops: Iterable[str]) -> None:
        self._stops = tuple(stops)
        self._held: list[Part] = []

    def add(self, parts: Sequence[Part], *, is_last: bool) -> tuple[list[Part], bool]:
        """What can be handed on, nothing of a stop text; and whether one was reached."""
        held = [*self._held, *parts]
        text = "".join(part.told for part in held)
        found = [place for place in (text.find(stop) for stop in self._stops) if place >= 0]
        if found:
            return cut(held, min(found))[0], True
        lengths = [n for stop in self._stops for n in range(1, len(stop)) if text.endswith(stop[:n])]
        now, self._held = cut(held, len(text) - (0 if is_last else max(lengths, default=0)))
        return now, False


def cut(parts: Iterable[Part], end: int) -> tuple[list[Part], list[Part]]:
    """Parts before and after a place of what is told. The surrogate of a value that is cut goes with its beginning."""
    before, after = [], []
    for part in parts:
        length = len(part.told)
        if end >= length:
            before.append(part)
        elif end <= 0:
            after.append(part)
        else:
            is_plain = part.seen == part.told
            before.append(Part(part.seen[:end] if is_plain else part.seen, part.told[:end]))
            after.append(Part(part.seen[end:] if is_plain else "", part.told[end:]))
        end = max(0, end - length)
    return before, after


def variants(pairs: Mapping[str, str], texts: Iterable[str]) -> dict[str, str]:
    """The pairs, and beside them the capitals in which a model may write a surrogate, where the prompt's own texts have no such word."""
    whole = "\n".join(texts)
    known = dict(pairs)
    for surrogate, value in pairs.items():
        others = [(surrogate.upper(), value.upper()), (_capitalised(surrogate), _capitalised(value))]
        if any(letter.isdigit() or letter == "@" for letter in surrogate):
            # A name written small may be a plain word; these are not.
            others.append((surrogate.lower(), value.lower()))
        for written, meant in others:
            if len(written) > 1 and written not in whole:
                known.setdefault(written, meant)
    return known


def _capitalised(text: str) -> str:
    return text[:1].upper() + text[1:]


def _meaning(written: str) -> str:
    if written == '"':
        return EDGE
    if len(written) == 1:
        return written
    try:
        return str(json.loads(f'"{written}"'))
    except ValueError:
        return written[-1]


def _is_word(letter: str) -> bool:
    return (letter.isalnum() or letter == "_") and letter < SPACELESS


def _joins(before: str, after: str) -> bool:
    """True where two characters are within one word: two letters, or two digits."""
    within = bool(before and after) and _is_word(before) and _is_word(after)
    return within and before.isdigit() == after.isdigit()
