"""Telling the numbers of sections, versions and netmasks from network addresses: `12.1.1.14`, `section 9.3.2.1`."""

import re
from functools import cached_property

BEFORE = re.compile(
    r"(?:(?i:\b(?:sections?|sect?|chapters?|chap|clauses?|figures?|fig|tables?|tab|appendix|annex|paragraphs?|para|parts?|article|art|step"
    r"|items?|requirements?|req|rules?|versions?|ver|vers|release|kernel|abschnitte?|kapitel|ziffer|abb|tabelle|rfc ?\d{3,5},?|see"
    r"|section[^\W\d_]?|chapitre|sezione|sección|capítulo|figura)|§{1,2})\.?(?:[ \t\n\xa0(\[]{1,4}|\]\()"
    r"|#(?:id|sec|section|sect|s|ch)?[-._]?|[-_](?:id|sec|section)[-._]?|\bid[-._])$"
)
LISTED = re.compile(r"(?:\d{1,3}(?:\.\d{1,3}){2,5})(?:,| and| or| to|-|–|, and)[ \n]{0,2}$")
START = re.compile(r"(?:^|\n)[ \t>|*]{0,40}(?:#{1,6}[ \t]+|[-*+•:][ \t]+)?(?:\[|\(|\|[ \t]*)?[*_]{0,2}$|[\"“]$")
HEADING = re.compile(r"\.?[*_]{0,2}(?:[ \t\xa0]{1,8}|\.[ \t]|[ \t]*\n[ \t]*)[\"“'`<(\[*_]{0,3}[^\W\d_]")
MARKED = re.compile(r"(?:^|\n)[ \t>]{0,20}#{1,6}[ \t]+[*_]{0,2}$")
NUMBER = re.compile(r"(?<![\d.])\d{1,3}(?:\.\d{1,3}){2,4}(?![\d]|\.\d)")
# Numbers of sections are small; addresses of networks seldom begin with such and have only small ones.
LARGEST_PART = 60
REACH = 40
# The loopback, and groups of hosts.
NOBODYS = frozenset([127, *range(224, 240)])
V4_DOTS = 3
V4 = re.compile(r"\d{1,3}(?:\.\d{1,3}){3}")
VERSION = re.compile(r"(?i:\b(?:versions?|ver|vers|release|kernel))\.?[ \t\n\xa0(]{1,4}$")
MASK = re.compile(r"255(?:\.(?:255|254|252|248|240|224|192|128|0)){3}")


class SectionNumbers:
    """The dotted numbers of a text."""

    def __init__(self, text: str) -> None:
        self._text = text

    def holds(self, start: int, end: int) -> bool:
        """True for a number that a heading or a word for a section shows at one of its places, a netmask, the loopback and 0.0.0.0."""
        address, _, prefix = self._text[start:end].partition("/")
        if V4.fullmatch(address) is None:
            return False
        numbers = [int(number) for number in address.split(".")]
        if MASK.fullmatch(address) or numbers[0] in NOBODYS or not any(numbers):
            return True
        if prefix:
            return False
        if max(numbers) > LARGEST_PART:
            return VERSION.search(self._text[max(0, start - REACH) : start]) is not None
        return address in self._sections

    @cached_property
    def _places(self) -> dict[str, list[int]]:
        places: dict[str, list[int]] = {}
        for match in NUMBER.finditer(self._text):
            places.setdefault(match[0], []).append(match.start())
        return places

    @cached_property
    def _sections(self) -> frozenset[str]:
        return frozenset(
            number
            for number, places in self._places.items()
            if number.count(".") == V4_DOTS and any(self._is_section(number, place) for place in places)
        )

    def _is_section(self, number: str, start: int) -> bool:
        before = self._text[max(0, start - REACH) : start]
        if BEFORE.search(before) or MARKED.search(before):
            return True
        is_heading = HEADING.match(self._text, start + len(number)) is not None and START.search(before) is not None
        return (is_heading or LISTED.search(before) is not None) and self._has_sibling(number)

    def _has_sibling(self, number: str) -> bool:
        """True if the text has the section above, or the one before or after."""
        above, _, last = number.rpartition(".")
        return any(
            sibling in self._places for sibling in (above, f"{above}.{int(last) - 1}", f"{above}.{int(last) + 1}")
        )
