"""Values with a fixed form: mail addresses, accounts, cards, national ids, network addresses, coordinates, dates of birth, codes."""

import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from services.anonymization.domain import Finding
from services.anonymization.recognise.checksums import (
    digits,
    is_iban,
    is_idnr,
    is_luhn,
    is_network_address,
    is_nhs,
    is_nir,
    is_pension_number,
    is_pesel,
    is_place,
)

MONTHS = (
    "Jan(?:uary)?|Feb(?:ruary)?|Mar(?:ch)?|Apr(?:il)?|May|June?|July?|Aug(?:ust)?|Sept?(?:ember)?|Oct(?:ober)?|Nov(?:ember)?|Dec(?:ember)?"
    "|Januar|Jänner|Februar|März|Mai|Juni|Juli|Oktober|Dezember|janvier|février|mars|avril|mai|juin"
    "|juillet|août|septembre|octobre|novembre|décembre"
)
DATE = (
    rf"(?:\d{{1,2}}(?:st|nd|rd|th|er|\.)?[\s-]{{1,2}}(?:of )?(?:{MONTHS})\.?,?[\s-]{{1,2}}\d{{2,4}}"
    rf"|(?:{MONTHS})\.?\s{{1,2}}\d{{1,2}}(?:st|nd|rd|th)?,?\s{{1,2}}\d{{4}}"
    r"|\d{1,2}[./-]\d{1,2}[./-]\d{4}|\d{1,2}[./-]\d{1,2}[./-]\d{2}|\d{4}[-/.]\d{2}[-/.]\d{2})(?!\d)"
)
BORN_WORDS = (
    r"\bborn|\bd\.?\s?o\.?\s?b\b\.?|\bdate[ -]of[ -]birth|\bbirth[ -]?date|\bbirthdays?|\bdate de naissance"
    r"|\bn(?:é|ée) le|\bgeboren|\bgeb\.|(?<=, )b\."
    r"|\bgeburtsdatum|\bgeburtstag|(?<!\*)\*(?= ?\d)"
)
BORN = re.compile(rf"(?i:(?:{BORN_WORDS})(?!\w))[^.\n]{{0,60}}?(?P<date>(?i:{DATE}))")
BORN_LATER = re.compile(rf"(?P<date>(?i:{DATE}))[^.\n]{{0,30}}?\s(?:geboren|né(?:e)? à)(?!\w)")
DOB_AFTER = re.compile(rf"(?P<date>(?i:{DATE}))(?= ?\((?i:date of birth|dob|d\.o\.b\.?|birthday|geburtsdatum)\))")
HEX6 = re.compile(
    r"(?<![\w:])[0-9A-Fa-f:]*:[0-9A-Fa-f:]*:[0-9A-Fa-f:]*(?:\d{1,3}(?:\.\d{1,3}){3})?(?:/\d{1,3})?(?![\w:])"
)
CARD = re.compile(
    r"(?:3[47]\d{13}|3[0689]\d{12}|(?:1800|2131|35\d\d)\d{11,12}|4\d{12}(?:\d{3}){0,2}|5[1-5]\d{14}|2[2-7]\d{14}|(?:5[06-8]|6)\d{10,17})"
)
# Between the groups of a number: spaces, a hyphen, or the end of a line.
GAP, WRAP = r"[ \t-]{0,2}", r"(?:[ \t-]{0,2}|\n[ \t>]{0,4})"
CAPS2 = "[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z]"


@dataclass(frozen=True)
class Pattern:
    """A form, and a check that rejects lookalikes."""

    entity_type: str
    form: re.Pattern[str]
    score: float
    check: Callable[[str], bool] = lambda _: True


def is_card(value: str) -> bool:
    """True for a payment card: length, first digits and checksum."""
    plain = digits(value)
    return CARD.fullmatch(plain) is not None and is_luhn(plain)


def is_wrapped_card(value: str) -> bool:
    """True for a payment card over two lines. Numbers that stand one below another are figures of a table."""
    return "\n" in value and any(line.count(" ") + line.count("-") for line in value.split("\n")) and is_card(value)


def is_version_6(value: str) -> bool:
    """True for an IPv6 address, but not for very short ones, which may be a time of day."""
    try:
        ipaddress.ip_interface(value)
    except ValueError:
        return False
    return len(value) > len("::ffff") and any(letter.isdigit() for letter in value)


DECIMAL = re.compile(r"(?<![\w.])-?\d{1,2}\.\d{3,8}°?\s?[,;]\s?-?\d{1,3}\.\d{3,8}(?![\w.]*\d)")
ANGLE = (
    r"-?\d{1,3}(?:[.,]\d+)?\s?°\s?(?:\d{1,2}(?:\.\d+)?\s?['′’]\s?)?"
    r"(?:\d{1,2}(?:[.,]\d+)?\s?(?:[\"″”]|'')\s?)?[NSEWO]"
)
DEGREES = re.compile(rf"{ANGLE}(?:\s?[,;/]?\s?{ANGLE})?(?!\w)")
VERSION_4 = re.compile(r"(?<![\d.])(?<!ersion )(?<!v)(?:\d{1,3}\.){3}\d{1,3}(?:/\d{1,2})?(?![\d.]*\d)")
WRAPPED_MAIL = re.compile(
    r"(?<![\w.+-])\w[\w.+-]{0,63}@[ \t]?\n?[ \t>]{0,4}[\w-]+(?:\.[\w-]+){0,5}?\.[^\W\d_]{2,24}(?!\w)"
)
# "Ask us @ example.org" is a sentence, so the name must have a dot, a digit or an underscore.
SPACED_MAIL = re.compile(
    r"(?<![\w.+-])(?=[\w+-]{0,64}[.\d_][\w.+-]{0,64} ?@)[\w.+-]{2,64} ?@ ?[\w-]+(?: ?\. ?[\w-]+){0,5}? ?\. ?[^\W\d_]{2,24}(?!\w)"
)
# A quoted name, and a network address in place of a host's name (RFC 5321, section 4.1.3).
RARE_MAIL = re.compile(
    r"\"[^\"\n@]{1,64}\"@(?:[\w-]+(?:\.[\w-]+)+|\[[\w.:]{2,45}\])|(?<![\w.+-])[\w.+-]{1,64}@\[[\w.:]{2,45}\]"
)
FIXED = (
    Pattern("EMAIL_ADDRESS", re.compile(r"(?<!\w)\w[\w.!#$%&'*+/?^`{|}~-]{0,64}@[\w-]+(?:\.[\w-]+)+"), 1.0),
    Pattern("EMAIL_ADDRESS", re.compile(r"(?<![\w.+-])[\w.+-]{1,64} ?(?:\(at\)|\[at\]) ?[\w-]+(?: ?(?:\(dot\)|\[dot\]|\.) ?[\w-]+)+"), 1.0),
    Pattern("EMAIL_ADDRESS", SPACED_MAIL, 0.99),
    Pattern("EMAIL_ADDRESS", WRAPPED_MAIL, 0.99),
    Pattern("EMAIL_ADDRESS", RARE_MAIL, 0.99),
    Pattern("IBAN", re.compile(rf"\b[A-Z]{{2}}\d{{2}}(?:{WRAP}[A-Z\d]{{4}}){{2,7}}(?:{WRAP}[A-Z\d]{{1,3}})?\b"), 1.0, is_iban),
    Pattern("CREDIT_CARD", re.compile(rf"(?<![\w.,-])[1-6]\d{{2,3}}(?:{GAP}\d){{8,15}}(?![\w-])"), 0.99, is_card),
    Pattern("CREDIT_CARD", re.compile(rf"(?<![\w.,-])[1-6]\d{{3}}(?:{WRAP}\d{{4}}){{2}}{WRAP}\d{{1,4}}(?![\w-])"), 0.99, is_wrapped_card),
    Pattern("IP_ADDRESS", VERSION_4, 0.95, is_network_address),
    Pattern("IP_ADDRESS", HEX6, 0.97, is_version_6),
    Pattern("IP_ADDRESS", re.compile(r"\b(?:[0-9A-Fa-f]{2}[:-]){5}[0-9A-Fa-f]{2}\b|\b(?:[0-9A-Fa-f]{4}\.){2}[0-9A-Fa-f]{4}\b"), 0.96),
    Pattern("NATIONAL_ID", re.compile(rf"\b(?:{CAPS2}|QQ){GAP}\d{{2}}{GAP}\d{{2}}{GAP}\d{{2}}{GAP}[A-D]\b"), 0.98),
    Pattern("NATIONAL_ID", re.compile(r"(?<![\w-])(?!000|666)\d{3}[-–](?!00)\d{2}[-–](?!0000)\d{4}(?![\w-])"), 0.9),
    Pattern("NATIONAL_ID", re.compile(r"\b[A-Z9]{5} ?\d[0156]\d[0-3]\d\d ?[A-Z9]{2}[A-Z\d] ?[A-Z]{2}\b"), 0.95),
    Pattern("NATIONAL_ID", re.compile(r"(?<![\d.,-])\d{3}[ -]?\d{3}[ -]?\d{4}(?![\d-])"), 0.92, is_nhs),
    Pattern("NATIONAL_ID", re.compile(r"(?<![\d.,-])[1-9]\d ?\d{3} ?\d{3} ?\d{3}(?![\d-])"), 0.93, is_idnr),
    Pattern("NATIONAL_ID", re.compile(r"\b\d{2} ?\d{6} ?[A-Z] ?\d{3}\b"), 0.95, is_pension_number),
    Pattern("NATIONAL_ID", re.compile(r"\b\d{11}\b"), 0.9, is_pesel),
    Pattern("NATIONAL_ID", re.compile(r"\b[12] ?\d{2} ?\d{2} ?(?:\d{2}|2[AB]) ?\d{3} ?\d{3} ?\d{2}\b"), 0.995, is_nir),
    Pattern("COORDINATES", DECIMAL, 0.95, lambda value: is_place(value.replace("°", ""))),
    Pattern("COORDINATES", DEGREES, 0.95),
    Pattern("VEHICLE", re.compile(r"\b[A-HJ-PR-Y][A-HJ-PR-Y](?:[0-2]\d|[5-7]\d) [A-HJ-PR-Z]{3}\b"), 0.8),
    Pattern("ACCOUNT_NUMBER", re.compile(r"\bbc1[a-z0-9]{25,60}\b|\b0x[0-9a-fA-F]{40}\b"), 0.95),
)  # fmt: skip


class PatternRecogniser:
    """Finds values by form and checksum, and the policy's codes and names."""

    def __init__(self, codes: Mapping[str, Iterable[str]], deny: Mapping[str, Iterable[str]]) -> None:
        codes_by_type = [Pattern(kind, re.compile(form), 1.0) for kind, forms in codes.items() for form in forms]
        denied = [
            Pattern(kind, re.compile(rf"(?<!\w){re.escape(name)}(?!\w)"), 1.0)
            for kind, names in deny.items()
            for name in names
        ]
        self._always = (*codes_by_type, *denied)

    def find(self, text: str) -> list[Finding]:
        patterns = self._always + (FIXED if "@" in text or any(map(str.isdigit, text)) else FIXED[1:2])
        findings = [
            Finding(match.start(), match.end(), pattern.entity_type, pattern.score)
            for pattern in patterns
            for match in pattern.form.finditer(text)
            if pattern.check(match[0])
        ]
        for form in (BORN, BORN_LATER, DOB_AFTER):
            findings += [
                Finding(match.start("date"), match.end("date"), "DATE_OF_BIRTH", 0.98) for match in form.finditer(text)
            ]
        return findings
