"""Phone numbers: all with a country code, and national numbers of the installation's regions, checked by phonenumbers."""

import re
from collections.abc import Iterable

import phonenumbers

from services.anonymization.domain import Finding

PHONE = "PHONE_NUMBER"
EXTENSION = r"(?:[ ,;/]{0,3}(?i:ext(?:ension)?|extn|x|durchwahl|dw|poste)[ .:]{0,2}\d{1,6}(?!\w))?"
# The end of a number; an extension may follow without a space.
NO_WORD = r"(?!(?![xX]\d)\w)"
INTERNATIONAL = re.compile(
    rf"(?<![\w+])(?:\+ ?|00)[1-9]\d{{0,2}}(?:[ \t\n.()/–-]{{0,3}}\d){{6,13}}{NO_WORD}{EXTENSION}"
)
NATIONAL = re.compile(
    r"(?<![\w.,:+-])(?:\(0\d{1,5}\)|0[1-9]\d{0,4})(?:[ \t./()–-]{0,3}\d){5,10}"
    rf"{NO_WORD}(?!-\d){EXTENSION}|(?<![\w.,:+-])(?:1[ .-])?(?:\(\d{{3}}\)[ .-]?"
    rf"|\d{{3}}[ .-])\d{{3}}[ .-]\d{{4}}{NO_WORD}(?!-\d){EXTENSION}"
)
LABELLED = re.compile(
    r"(?i:\b(?:tel(?:efon|ephone)?|phone|mobile?|mob|cell|fax|telefax|handy|mobil|durchwahl|tél(?:éphone)?"
    r"|portable|rufnummer|hotline|pager|whatsapp|direct(?: dial| line)?)\b"
    r"(?: (?:no|number|nummer|nr))?[.:]{0,2}\s{0,3})(?P<number>\(?\+?\d(?:[ \t\n.()/–-]{0,3}\d){5,14})"
    + NO_WORD
    + EXTENSION
)
# A number without a country code, between 7 and 12 digits in groups, by the words around it.
LOCAL = r"\(?\d{2,5}\)?(?:[ .–-]{0,2}\(?\d{1,8}\)?){1,5}(?:[ ]?[xX]\d{1,5})?(?![\w-])"
BEFORE = re.compile(
    r"(?i:\b(?:call(?:ed|ing)?(?: (?:me|us|him|her|them|back))?|phone[ds]?|tel|telephone|mobile|cell|fax|ring|reach"
    r"(?:ed)?(?: (?:me|us|him|her))?|text|contact(?: (?:me|us|him|her))?"
    r"|messages?|whatsapp|registered|numbers?|answering)(?: (?:on|at|to|is|via|no\.?|number))?[:\s]{1,3})(?P<number>"
    + LOCAL
    + ")"
)
AFTER = re.compile(
    r"(?<![\w.,/-])(?P<number>"
    + LOCAL
    + r")(?=[ ]?[-–(]?[ ]?\(?(?i:office|fax|mobile|cell|home|work|desk|phone|tel|direct)\b)"
)
MIN_LOCAL_DIGITS, MAX_LOCAL_DIGITS = 7, 13
DATE_LIKE = re.compile(r"\d{1,2}([./-])\d{1,2}\1\d{2,4}(?!\d)")


class PhoneRecogniser:
    """Finds phone numbers in a paragraph."""

    def __init__(self, regions: Iterable[str]) -> None:
        self._regions = tuple(regions)

    def find(self, text: str) -> list[Finding]:
        """Numbers, including their extensions."""
        if sum(map(str.isdigit, text)) < 6:
            return []
        # Only phone numbers begin with a plus; two zeros are less certain.
        findings = [
            Finding(match.start(), match.end(), PHONE, 0.994 if match[0][0] == "+" else 0.9)
            for match in INTERNATIONAL.finditer(text)
        ]
        findings += [
            Finding(match.start(), match.end(), PHONE, 0.85)
            for match in NATIONAL.finditer(text)
            if not DATE_LIKE.match(match[0]) and self._is_valid(match[0])
        ]
        findings += [
            Finding(match.start("number"), match.end("number"), PHONE, 0.8)
            for form in (BEFORE, AFTER)
            for match in form.finditer(text)
            if _is_local(match["number"])
        ]
        return findings + [
            Finding(match.start("number"), match.end(), PHONE, 0.85) for match in LABELLED.finditer(text)
        ]

    def _is_valid(self, value: str) -> bool:
        value = " ".join(value.split())
        for region in self._regions:
            try:
                number = phonenumbers.parse(value, region)
            except phonenumbers.NumberParseException:
                continue
            # Numbers reserved for fiction and tests are possible but not valid.
            shaped = not value.isdigit() and phonenumbers.is_possible_number(number)
            if shaped or phonenumbers.is_valid_number(number):
                return True
        return False


def _is_local(value: str) -> bool:
    """True for a number of the length of a phone number that is not a date or an amount of years."""
    count = sum(map(str.isdigit, value.lower().split("x", maxsplit=1)[0]))
    return MIN_LOCAL_DIGITS <= count <= MAX_LOCAL_DIGITS and not DATE_LIKE.fullmatch(value)
