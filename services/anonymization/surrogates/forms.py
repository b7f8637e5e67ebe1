"""Normal forms, which all spellings of a value share, and surrogates spelt like the value that they replace."""

import re
from collections.abc import Callable

import phonenumbers

from services.anonymization.recognise.checksums import digits
from services.anonymization.recognise.lexicon import fold
from services.anonymization.surrogates import dates

PERSON, MAIL, PHONE = "PERSON", "EMAIL_ADDRESS", "PHONE_NUMBER"
GIVEN = "PERSON_GIVEN"
FAMILY = "PERSON_FAMILY"
WORD = "CLIENT_WORD"
# Names are stored word by word: the types that a word may have, in the order in which they are tried.
PARTS = {"PERSON": (GIVEN, FAMILY), "CLIENT": (WORD,)}
NAME_WORDS = (GIVEN, FAMILY, WORD)
# Numbers without a country code are tried in these regions.
REGIONS = ("GB", "US", "DE", "FR")
# Types whose case is not part of the value, and whose surrogates keep the spelling they were drawn in.
AS_DRAWN = (MAIL, "USERNAME", "URL")
ISO_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
SHORTEST_REPEATED = 3


def normal(entity_type: str, value: str) -> str:
    """The form in which the vault stores a value of this type; the same for all its spellings."""
    return NORMAL.get(entity_type, _code)(value)


def true_forms(entity_type: str, surrogate: str) -> set[tuple[str, str]]:
    """The (type, normal form) pairs under which the vault would know the surrogate if it were somebody's true value."""
    if entity_type not in NAME_WORDS:
        return {(entity_type, normal(entity_type, surrogate))}
    words = {fold(surrogate), *fold(surrogate).split("-")}
    return {(kind, word) for kind in NAME_WORDS for word in words}


def repeats(entity_type: str, candidate: str, key: str) -> bool:
    """True if a surrogate would spell out the true value, as `Joanna` does with `Ann` and `23 May 1996` with `3 May 1996`.

    `key` is the value's normal form. Below SHORTEST_REPEATED characters it is in too many words to matter.
    """
    form = normal(entity_type, candidate)
    if ISO_DATE.fullmatch(key) and ISO_DATE.fullmatch(form):
        # 23/11/1996 contains 3/11/1996, and 11/3/1996 contains 1/3/1996.
        return form[:4] == key[:4] and (form[5:7] == key[5:7] or form[8:] == key[8:])
    return len(key) >= SHORTEST_REPEATED and key in form


def write_like(entity_type: str, surrogate: str, value: str, language: str = "") -> str:
    """Spell a surrogate in normal form like the value: separators, country code, order of a date, month names, capitals."""
    if entity_type == "DATE_OF_BIRTH":
        date, other = dates.read(value, language), dates.read(surrogate)
        if date and date.whole and other and other.whole:
            return date.rewrite(other.whole)
    if entity_type == "IP_ADDRESS":
        return surrogate.lower() if value == value.lower() else surrogate.upper()
    if entity_type in AS_DRAWN:
        return surrogate.upper() if value.isupper() else surrogate
    if entity_type == PHONE:
        return _fill_from_right(surrogate, value)
    return _fill(surrogate, value)


def _fill(surrogate: str, value: str) -> str:
    """The surrogate's letters and digits in the value's places; surplus characters follow at the end."""
    letters = [letter for letter in surrogate if letter.isalnum()]
    places = sum(letter.isalnum() for letter in value)
    if len(letters) < places:
        return surrogate
    filling = iter(letters[:places])
    whole = "".join(next(filling) if letter.isalnum() else letter for letter in value) + "".join(letters[places:])
    return whole.lower() if value.islower() else whole


def _fill_from_right(surrogate: str, value: str) -> str:
    """The surrogate's national digits in the value's places, from the right; the digits before them are country code or trunk prefix."""
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
    """E.164 form. A number without a country code gets that of the first region where it is valid; otherwise only its digits remain."""
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
    date = dates.read(value)
    return date.whole.isoformat() if date and date.whole else _code(value)


def _code(value: str) -> str:
    return "".join(letter for letter in value.upper() if letter.isalnum() or letter in ".:/")


def _alphanumeric(value: str) -> str:
    return "".join(letter for letter in value.upper() if letter.isalnum())


NORMAL: dict[str, Callable[[str], str]] = {
    **dict.fromkeys(NAME_WORDS, fold),
    **dict.fromkeys(("IBAN", "CREDIT_CARD", "NATIONAL_ID", "VEHICLE"), _alphanumeric),
    **dict.fromkeys(AS_DRAWN, str.lower),
    "ADDRESS": lambda value: " ".join(fold(word) for word in re.findall(r"\w+", value)),
    PHONE: _phone,
    "DATE_OF_BIRTH": _birth_date,
    "IP_ADDRESS": lambda value: "".join(value.lower().split()),
}
