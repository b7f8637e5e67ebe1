"""Surrogates that keep a value's form. A draw is determined by its seed."""

import random
import re
from collections.abc import Callable
from datetime import date, timedelta

import phonenumbers
from stdnum.iso7064 import mod_97_10

from services.anonymization.recognise.checksums import digits, is_luhn

LETTERS = "ABCDEFGHJKLMNPRSTUVWXYZ"
WIDEN_AFTER = 40
VOWELS = "aeiou"
CONSONANTS = "bdfghklmnprstvw"
IPV4 = re.compile(r"(?:\d{1,3}\.){3}\d{1,3}(?:/\d{1,2})?")
# With at most this many digits, later true codes would soon equal drawn ones.
SHORT_NUMBER = 6
YEAR = re.compile(r"(?:19|20)\d{2}")

Draw = Callable[[random.Random, str, int], str]


def like(chance: random.Random, value: str, _: int = 0, keep: int = 0) -> str:
    """Replace all digits except the first `keep`."""
    seen = 0
    letters = []
    for letter in value:
        seen += letter.isdigit()
        is_replaced = letter.isdigit() and seen > keep
        letters.append(str(chance.randint(0, 9)) if is_replaced else letter)
    return "".join(letters)


def phone(chance: random.Random, value: str, _: int) -> str:
    """A number in the same country and area."""
    return like(chance, value, keep=max(_country_digits(value), len(digits(value)) - 6))


def _country_digits(value: str) -> int:
    """The number of digits of the country code; without one, 2 for the area."""
    if value.startswith("+"):
        try:
            return len(str(phonenumbers.parse(value).country_code))
        except phonenumbers.NumberParseException:
            return 3
    return 2


def iban(chance: random.Random, value: str, _: int) -> str:
    """Another account in the same country with a valid checksum."""
    plain = "".join(value.split())
    body = "".join(str(chance.randint(0, 9)) if letter.isdigit() else chance.choice(LETTERS) for letter in plain[4:])
    letters = iter(f"{plain[:2]}{mod_97_10.calc_check_digits(body + plain[:2])}{body}")
    return "".join(letter if letter.isspace() else next(letters) for letter in value)


def card(chance: random.Random, value: str, _: int) -> str:
    """Another card of the same scheme with a valid checksum."""
    # Two digits identify the scheme; for those that begin with 2 or 6, four.
    drawn = like(chance, value, keep=4 if value[0] in "26" else 2)
    return next(candidate for digit in "0123456789" if is_luhn(candidate := drawn[:-1] + digit))


def national_id(chance: random.Random, value: str, _: int) -> str:
    """Other digits in the same form. Two leading letters become QQ, which no real number has."""
    drawn = like(chance, value)
    return "QQ" + drawn[2:] if value[:2].isalpha() else drawn


def network_address(chance: random.Random, value: str, _: int) -> str:
    """Another address: private ones stay private, public ones move to the block for benchmarks (RFC 2544)."""
    if not IPV4.fullmatch(value):
        return "".join(
            chance.choice("0123456789abcdef") if letter in "0123456789abcdefABCDEF" else letter for letter in value
        )
    head, slash, mask = value.partition("/")
    first, second = (
        ("10", chance.randint(0, 255))
        if head.startswith(("10.", "192.168.", "172."))
        else ("198", chance.choice((18, 19)))
    )
    return f"{first}.{second}.{chance.randint(0, 255)}.{chance.randint(1, 254)}{slash}{mask}"


def birth_date(chance: random.Random, value: str, attempt: int) -> str:
    """Another date within four years; the range grows with the attempts."""
    try:
        born = date.fromisoformat(value)
    except ValueError:
        return "".join(_redraw_numbers(chance, value)[0]) + _more_digits(chance, attempt)
    shift = timedelta(days=chance.choice((-1, 1)) * chance.randint(20, 1460 + 60 * attempt))
    try:
        return (born + shift).isoformat()
    except OverflowError:
        # 31.12.9999 stands for a date that never comes.
        return (born - shift).isoformat()


def code(chance: random.Random, value: str, attempt: int) -> str:
    """Another number under the same prefix and year; without digits, other letters. Grows longer when unused codes run out.

    A short number after letters ends in a letter, because all true codes of its form, later ones included, have a digit there.
    """
    if not any(letter.isdigit() for letter in value):
        drawn = "".join(chance.choice(LETTERS) if letter.isalpha() else letter for letter in value)
        return (drawn if value.isupper() else drawn.lower()) + "".join(chance.choice(LETTERS) for _ in _extra(attempt))
    parts, numbers = _redraw_numbers(chance, value)
    if any(map(str.isalpha, value)) and 0 < sum(len(parts[place]) for place in numbers) <= SHORT_NUMBER:
        parts[numbers[-1]] = parts[numbers[-1]][:-1] + chance.choice(LETTERS)
    return "".join(parts) + _more_digits(chance, attempt)


def _redraw_numbers(chance: random.Random, value: str) -> tuple[list[str], list[int]]:
    """The parts of a value with new numbers except for years, and the indices of the new numbers."""
    parts = re.split(r"(\d+)", value)
    years = {place for place, part in enumerate(parts) if len(parts) > 3 and YEAR.fullmatch(part)}
    numbers = [place for place, part in enumerate(parts) if part.isdigit() and place not in years]
    return [like(chance, part) if place in numbers else part for place, part in enumerate(parts)], numbers


def _more_digits(chance: random.Random, attempt: int) -> str:
    return "".join(str(chance.randint(0, 9)) for _ in _extra(attempt))


def _extra(attempt: int) -> range:
    """After the first attempts, one more character for every hundred that failed."""
    return range((attempt + 100 - WIDEN_AFTER) // 100 if attempt > WIDEN_AFTER else 0)


def plate(chance: random.Random, value: str, _: int) -> str:
    """Replace all letters and digits."""
    return "".join(chance.choice(LETTERS) if letter.isalpha() else letter for letter in like(chance, value))


def username(chance: random.Random, value: str, attempt: int) -> str:
    """Another pronounceable word with other digits; grows longer when unused names run out."""
    return spoken(chance, value) + _more_digits(chance, attempt)


def url(chance: random.Random, value: str, _: int) -> str:
    """Another URL of the same depth, under a domain that cannot exist."""
    scheme, mark, rest = value.rpartition("://")
    host, slash, path = rest.partition("/")
    name = host.removeprefix("www.").rpartition(".")[0] or host
    return f"{scheme}{mark}{spoken(chance, name)}.example{slash}{spoken(chance, path)}"


def spoken(chance: random.Random, value: str) -> str:
    """Replace vowels by vowels and consonants by consonants."""
    letters = []
    for letter in like(chance, value):
        other = letter
        if letter.isalpha():
            other = chance.choice(VOWELS if letter.casefold() in VOWELS else CONSONANTS)
        letters.append(other.upper() if letter.isupper() else other)
    return "".join(letters)


DRAWS: dict[str, Draw] = {
    "PHONE_NUMBER": phone,
    "IBAN": iban,
    "CREDIT_CARD": card,
    "NATIONAL_ID": national_id,
    "IP_ADDRESS": network_address,
    "DATE_OF_BIRTH": birth_date,
    "USERNAME": username,
    "URL": url,
    "VEHICLE": plate,
}
