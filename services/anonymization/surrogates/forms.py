"""A value's normal form, under which all its writings meet, and how a stand-in is written like the value that it stands for."""

import re
from collections.abc import Callable

import phonenumbers

from services.anonymization.recognise.checksums import digits
from services.anonymization.recognise.lexicon import fold
from services.anonymization.surrogates import dates

GIVEN = "PERSON_GIVEN"
FAMILY = "PERSON_FAMILY"
WORD = "CLIENT_WORD"
# A name is kept word by word: the types that a word of it may have, in the order in which they are tried.
PARTS = {"PERSON": (GIVEN, FAMILY), "CLIENT": (WORD,)}
NAME_WORDS = (GIVEN, FAMILY, WORD)
# Whose numbers are known without a country code.
REGIONS = ("GB", "US", "DE", "FR")
# Types whose case is no part of the value, and whose stand-ins are written as they were drawn.
AS_DRAWN = ("EMAIL_ADDRESS", "USERNAME", "URL")


def normal(entity_type: str, value: str) -> str:
    """The form under which the vault knows a value of this type; the same for all its writings."""
    return NORMAL.get(entity_type, _code)(value)


def true_forms(entity_type: str, surrogate: str) -> set[tuple[str, str]]:
    """Types and normal forms that a surrogate would be known under if somebody really bore it."""
    if entity_type not in NAME_WORDS:
        return {(entity_type, normal(entity_type, surrogate))}
    words = {fold(surrogate), *fold(surrogate).split("-")}
    return {(kind, word) for kind in NAME_WORDS for word in words}


def write_like(entity_type: str, surrogate: str, value: str) -> str:
    """A surrogate in normal form, written as the value is: its separators, country code or none, order of a date, capitals."""
    if entity_type == "DATE_OF_BIRTH":
        written, other = dates.read(value), dates.read(surrogate)
        if written and written.whole and other and other.whole:
            return written.again(other.whole)
    if entity_type == "IP_ADDRESS":
        return surrogate.lower() if value == value.lower() else surrogate.upper()
    if entity_type in AS_DRAWN:
        return surrogate.upper() if value.isupper() else surrogate
    if entity_type == "PHONE_NUMBER":
        return _poured_from_right(surrogate, value)
    return _poured(surrogate, value)


def _poured(surrogate: str, value: str) -> str:
    """The surrogate's letters and digits in the value's places; what is too long goes on at the end."""
    letters = [letter for letter in surrogate if letter.isalnum()]
    places = sum(letter.isalnum() for letter in value)
    if len(letters) < places:
        return surrogate
    poured = iter(letters[:places])
    whole = "".join(next(poured) if letter.isalnum() else letter for letter in value) + "".join(letters[places:])
    return whole.lower() if value.islower() else whole


def _poured_from_right(surrogate: str, value: str) -> str:
    """The surrogate's digits in the value's places, last to last; what precedes them in the value is country code or trunk prefix."""
    places = [place for place, letter in enumerate(value) if letter.isdigit()]
    drawn = list(value)
    national = digits(surrogate)[_country_length(surrogate) :]
    for place, digit in zip(reversed(places), reversed(national), strict=False):
        drawn[place] = digit
    return "".join(drawn)


def _country_length(number: str) -> int:
    if not number.startswith("+"):
        return 0
    try:
        return len(str(phonenumbers.parse(number).country_code))
    except phonenumbers.NumberParseException:
        return 0


def _phone(value: str) -> str:
    """`+` and all digits; a number without country code gets that of the region where it is valid, else stays digits."""
    plain = re.sub(r"\(0\)", "", value).strip()
    if plain.startswith(("+", "00")):
        return "+" + digits(plain.removeprefix("00"))
    for region in REGIONS:
        try:
            parsed = phonenumbers.parse(plain, region)
        except phonenumbers.NumberParseException:
            continue
        if phonenumbers.is_valid_number(parsed) and not parsed.extension:
            return str(phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.E164))
    return digits(plain)


def _birth_date(value: str) -> str:
    written = dates.read(value)
    return written.whole.isoformat() if written and written.whole else _code(value)


def _code(value: str) -> str:
    return "".join(letter for letter in value.upper() if letter.isalnum() or letter in ".:/")


def _alphanumeric(value: str) -> str:
    return "".join(letter for letter in value.upper() if letter.isalnum())


NORMAL: dict[str, Callable[[str], str]] = {
    **dict.fromkeys(NAME_WORDS, fold),
    **dict.fromkeys(("IBAN", "CREDIT_CARD", "NATIONAL_ID", "VEHICLE"), _alphanumeric),
    **dict.fromkeys(AS_DRAWN, str.lower),
    "ADDRESS": lambda value: " ".join(fold(word) for word in re.findall(r"\w+", value)),
    "PHONE_NUMBER": _phone,
    "DATE_OF_BIRTH": _birth_date,
    "IP_ADDRESS": lambda value: "".join(value.lower().split()),
}
