"""Street addresses on one line or several, in the forms of Britain, Ireland, the continent and the United States."""

import re
from collections.abc import Iterator

from services.anonymization.adapters.lexicon import Lexicon
from services.anonymization.domain import Finding

ADDRESS = "ADDRESS"
CAP = r"(?:[^\W\d_a-zß-öø-ÿ][\w'’.-]*)"
CODE = re.compile(
    r"(?P<gb>\b[A-Z]{1,2}\d[A-Z\d]?\s\d[A-Z]{2}\b)|(?P<ie>\b[A-Z]\d[\dW]\s[A-Z\d]{4}\b)|(?P<us>\b[A-Z]{2}\s\d{5}(?:-\d{4})?\b)"
    rf"|(?P<eu>\b(?:[A-Z]{{1,2}}-)?\d{{4,5}}\s{CAP}(?:\s(?:am|an|im|in|der|den|dem|la|le|les|de|du|sur|sous|en|bei|{CAP}))*)"
)
SEPARATOR = re.compile(r",\s*|[ \t]*\n[ \t]*")
MAX_SEGMENTS = 6
WORD = re.compile(r"[\w'’.-]+")


class Addresses:
    """Finds street addresses in a paragraph."""

    def __init__(self, lexicon: Lexicon) -> None:
        self._lexicon = lexicon
        streets = "|".join(sorted(lexicon.lists["streets"], key=len, reverse=True))
        after = "|".join(sorted(lexicon.lists["streets_after_number"], key=len, reverse=True))
        self._bare = re.compile(
            rf"\b(?:(?:Flat|Unit|Suite|Apartment|Apt)\s\w{{1,4}},\s)?\d{{1,4}}[A-Za-z]?(?:\s{CAP}){{1,3}}\s(?i:{streets})\b"
            rf"|\b\d{{1,4}}(?:\s?bis)?,?\s(?:{after})\s(?:(?:de|du|des|la|le|les|d['’]|l['’])\s?)*{CAP}(?:[\s-]{CAP})*"
        )
        before = "|".join(sorted(lexicon.lists["streets_before_number"], key=len, reverse=True))
        self._german = re.compile(rf"\b[^\W\d_a-z]\w*(?:[ -]{CAP})*?(?:[ -])?(?i:{before})\.?\s\d{{1,4}}\s?[a-z]?\b")

    def find(self, text: str) -> list[Finding]:
        """Addresses; a street without a town counts where it has a number."""
        findings = [finding for match in CODE.finditer(text) if (finding := self._around(text, match)) is not None]
        for pattern in (self._bare, self._german):
            findings += [Finding(match.start(), match.end(), ADDRESS, 0.8) for match in pattern.finditer(text)]
        return findings

    def _around(self, text: str, code: re.Match[str]) -> Finding | None:
        """Go back from a postcode, segment by segment, while they look like parts of an address."""
        start = None
        street = False
        for begin, end in self._segments(text, code.start()):
            tail = self._tail(text[begin:end])
            if tail is None and end > begin:
                break
            begins = begin if tail is None else begin + tail
            words = WORD.findall(text[begins:end])
            if street and not self._is_building(words):
                break
            start = begins if words else start
            street = street or self._is_street(words)
            if tail:
                break
        if start is None or not (street or (code["gb"] and "," in text[start : code.start()])):
            return None
        return Finding(start, self._end(text, code), ADDRESS, 0.97)

    def _segments(self, text: str, end: int) -> Iterator[tuple[int, int]]:
        """Stretches between commas and line ends, from right to left."""
        floor = max(0, end - 160)
        breaks = [(match.start(), match.end()) for match in SEPARATOR.finditer(text, floor, end)]
        for _ in range(MAX_SEGMENTS):
            begin = breaks[-1][1] if breaks else floor
            yield begin, end
            if not breaks:
                return
            end = breaks.pop()[0]

    def _tail(self, segment: str) -> int | None:
        """Where the address-like words at a segment's end begin; None where there are none."""
        begin = None
        for match in reversed(list(WORD.finditer(segment))):
            word = match[0]
            if word[0].isupper() or word[0].isdigit() or self._lexicon.has("streets_after_number", word):
                if self._lexicon.has("never", word) or re.search(r"[.:;!?()]", segment[match.end() : match.end() + 1]):
                    break
                begin = match.start()
            elif not self._lexicon.has("address_words", word):
                break
        return begin

    def _is_street(self, words: list[str]) -> bool:
        numbered = any(word[0].isdigit() for word in words)
        lists = ("streets", "streets_after_number")
        named = any(self._lexicon.has(each, word) for each in lists for word in words[1:] or words)
        return (numbered and len(words) > 1) or named

    def _is_building(self, words: list[str]) -> bool:
        return any(self._lexicon.has("buildings", word) for word in words) or (
            len(words) <= 4 and any(self._lexicon.has("streets", word) for word in words)
        )

    def _end(self, text: str, code: re.Match[str]) -> int:
        """A town after a continental code ends with the last capitalised word of its line."""
        if not code["eu"]:
            return code.end()
        town = code[0].split("\n")[0].rstrip()
        words = town.split()
        while len(words) > 2 and not words[-1][0].isupper():
            words.pop()
        return code.start() + len(town[: town.rindex(words[-1]) + len(words[-1])].rstrip(".'’"))
