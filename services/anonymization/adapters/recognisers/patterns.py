"""Values that have a form: mails, phones, accounts, cards, national ids, network addresses, dates of birth, codes."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import phonenumbers

from services.anonymization.domain import Finding

MONTHS = "January|February|March|April|May|June|July|August|September|October|November|December"
DATE = (
    rf"(?:\d{{1,2}}(?:st|nd|rd|th)? (?:{MONTHS}),? \d{{4}}|(?:{MONTHS}) \d{{1,2}},? \d{{4}}"
    r"|\d{1,2}[./-]\d{1,2}[./-]\d{2,4}|\d{4}-\d{2}-\d{2})"
)
BORN_WORDS = (
    r"\bborn|\bd\.?o\.?b\.?|\bdate of birth|\bbirth ?date|\bbirthday|\bn(?:é|ée) le|\bgeboren|\bgeb\.|(?<=, )b\."
)
BORN = re.compile(rf"(?i:(?:{BORN_WORDS})(?!\w))[^.\n]{{0,40}}?(?P<date>{DATE})")
DOB_AFTER = re.compile(rf"(?P<date>{DATE})(?= ?\((?:date of birth|DOB|birthday)\))")
REGIONS = ("GB", "US", "DE", "FR")


@dataclass(frozen=True)
class Pattern:
    """A form, and the check that tells a value from something that looks like one."""

    entity_type: str
    form: re.Pattern[str]
    score: float
    check: Callable[[str], bool] = lambda _: True


def digits(value: str) -> str:
    """The digits alone."""
    return "".join(letter for letter in value if letter.isdigit())


def is_luhn(value: str) -> bool:
    """The check of payment cards."""
    numbers = [int(digit) for digit in reversed(digits(value))]
    return (
        sum(number if place % 2 == 0 else sum(divmod(number * 2, 10)) for place, number in enumerate(numbers)) % 10 == 0
    )


def is_iban(value: str) -> bool:
    """The check of account numbers (ISO 7064 mod 97)."""
    plain = "".join(value.split()).upper()
    return int("".join(str(int(letter, 36)) for letter in plain[4:] + plain[:4])) % 97 == 1


def is_pesel(value: str) -> bool:
    """The check of Polish national ids."""
    weights = (1, 3, 7, 9, 1, 3, 7, 9, 1, 3, 1)
    return sum(weight * int(digit) for weight, digit in zip(weights, value, strict=True)) % 10 == 0


def is_insee(value: str) -> bool:
    """The check of French national ids."""
    plain = "".join(value.split())
    return int(plain[13:]) == 97 - int(plain[:13]) % 97


def is_address(value: str) -> bool:
    """True where every part of a network address is a byte."""
    return all(int(part) < 256 for part in value.split("/", maxsplit=1)[0].split("."))


FIXED = (
    Pattern("EMAIL_ADDRESS", re.compile(r"[\w.!#$%&'*+/=?^`{|}~-]*\w@[\w-]+(?:\.[\w-]+)+"), 1.0),
    Pattern("IBAN", re.compile(r"\b[A-Z]{2}\d{2}(?:\s?[A-Z\d]{4}){2,7}(?:\s?[A-Z\d]{1,3})?\b"), 1.0, is_iban),
    Pattern("CREDIT_CARD", re.compile(r"\b(?:\d{4}[ -]?){3}\d{4}\b|\b3[47]\d{2}[ -]?\d{6}[ -]?\d{5}\b"), 0.99, is_luhn),
    Pattern("IP_ADDRESS", re.compile(r"(?<![\d.])(?:\d{1,3}\.){3}\d{1,3}(?:/\d{1,2})?(?![\d.]*\d)"), 0.95, is_address),
    Pattern("IP_ADDRESS", re.compile(r"\b(?:[0-9a-fA-F]{1,4}:){3,7}(?::?[0-9a-fA-F]{1,4}){1,5}\b"), 0.95),
    Pattern("IP_ADDRESS", re.compile(r"\b(?:[0-9A-Fa-f]{2}[:-]){5}[0-9A-Fa-f]{2}\b"), 0.95),
    Pattern("NATIONAL_ID", re.compile(r"\b[A-CEGHJ-PQR-TW-Z][A-CEGHJ-NPQR-TW-Z] ?\d{2} ?\d{2} ?\d{2} ?[A-D]\b"), 0.98),
    Pattern("NATIONAL_ID", re.compile(r"\b(?!000|666|9)\d{3}-(?!00)\d{2}-(?!0000)\d{4}\b"), 0.9),
    Pattern("NATIONAL_ID", re.compile(r"\b\d{11}\b"), 0.9, is_pesel),
    Pattern("NATIONAL_ID", re.compile(r"\b[12] ?\d{2} ?\d{2} ?\d{2} ?\d{3} ?\d{3} ?\d{2}\b"), 0.95, is_insee),
)
INTERNATIONAL = re.compile(r"(?<![\w+])(?:\+|00)[1-9]\d{0,2}(?:[ \t\n.()/-]{0,2}\d){6,12}(?!\w)")


class Patterns:
    """Finds values by form and checksum."""

    def __init__(self, codes: Mapping[str, Iterable[str]], deny: Mapping[str, Iterable[str]]) -> None:
        own = [Pattern(kind, re.compile(form), 1.0) for kind, forms in codes.items() for form in forms]
        named = [
            Pattern(kind, re.compile(rf"(?<!\w){re.escape(name)}(?!\w)"), 1.0)
            for kind, names in deny.items()
            for name in names
        ]
        self._patterns = (*own, *named, *FIXED)

    def find(self, text: str) -> list[Finding]:
        """Values with their type."""
        findings = [
            Finding(match.start(), match.end(), pattern.entity_type, pattern.score)
            for pattern in self._patterns
            for match in pattern.form.finditer(text)
            if pattern.check(match[0])
        ]
        for form in (BORN, DOB_AFTER):
            findings += [
                Finding(match.start("date"), match.end("date"), "DATE_OF_BIRTH", 0.98) for match in form.finditer(text)
            ]
        return findings + phones(text)


def phones(text: str) -> list[Finding]:
    """Phone numbers: any with a country code; national ones where they are valid in Britain, America, Germany or France."""
    findings = [Finding(match.start(), match.end(), "PHONE_NUMBER", 0.9) for match in INTERNATIONAL.finditer(text)]
    if sum(letter.isdigit() for letter in text) < 7:
        return findings
    for region in REGIONS:
        for match in phonenumbers.PhoneNumberMatcher(text, region, leniency=phonenumbers.Leniency.VALID):
            national = (
                match.raw_string.startswith(("0", "("))
                if region != "US"
                else re.fullmatch(r"\(?\d{3}\)?[ .-]\d{3}[ .-]\d{4}", match.raw_string)
            )
            if national:
                findings.append(Finding(match.start, match.end, "PHONE_NUMBER", 0.8))
    return findings
