"""Drawing stand-ins that keep a value's form. Every draw is fixed by its seed."""

import random
import re
from collections.abc import Callable

from services.anonymization.adapters.recognisers.patterns import digits, is_luhn

LETTERS = "ABCDEFGHJKLMNPRSTUVWXYZ"
WIDEN_AFTER = 40
YEAR = re.compile(r"(?:19|20)\d{2}")

Draw = Callable[[random.Random, str, int], str]


def like(chance: random.Random, value: str, _: int = 0, keep: int = 0) -> str:
    """Other digits in the same places; the first `keep` digits stay."""
    seen = 0
    drawn = []
    for letter in value:
        if letter.isdigit():
            seen += 1
            drawn.append(letter if seen <= keep else str(chance.randint(0, 9)))
        else:
            drawn.append(letter)
    return "".join(drawn)


def phone(chance: random.Random, value: str, attempt: int) -> str:
    """The same country and area, other subscriber digits; more of them differ as attempts go on."""
    count = len(digits(value))
    return like(chance, value, keep=max(2, count - 6 - attempt // 8))


def iban(chance: random.Random, value: str, _: int) -> str:
    """Another account of the same country whose checksum holds."""
    plain = "".join(value.split())
    body = "".join(str(chance.randint(0, 9)) if letter.isdigit() else chance.choice(LETTERS) for letter in plain[4:])
    number = int("".join(str(int(letter, 36)) for letter in body + plain[:2] + "00"))
    letters = iter(f"{plain[:2]}{98 - number % 97:02d}{body}")
    return "".join(letter if letter.isspace() else next(letters) for letter in value)


def card(chance: random.Random, value: str, _: int) -> str:
    """Another card of the same network whose checksum holds."""
    drawn = like(chance, value, keep=1)
    return next(candidate for digit in "0123456789" if is_luhn(candidate := drawn[:-1] + digit))


def national_id(chance: random.Random, value: str, _: int) -> str:
    """The same form, other digits, and QQ where two letters lead, which no living number has."""
    drawn = like(chance, value)
    return "QQ" + drawn[2:] if value[:2].isalpha() else drawn


def network_address(chance: random.Random, value: str, _: int) -> str:
    """Another address: private stays private, public goes to the block for benchmarks."""
    if ":" in value or "-" in value:
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


def birth_date(chance: random.Random, value: str, _: int) -> str:
    """Another date in the same writing, within four years."""
    year = chance.choice((-4, -3, -2, -1, 1, 2, 3, 4))
    shifted = YEAR.sub(lambda match: str(int(match[0]) + year), value)
    months = (
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    )
    named = re.sub("|".join(months), lambda _: chance.choice(months), shifted)
    return re.sub(r"(?<!\d)\d{1,2}(?!\d)", lambda match: f"{chance.randint(1, 12):0{len(match[0])}d}", named)


def code(chance: random.Random, value: str, attempt: int) -> str:
    """Another number under the same prefix and year; one digit longer where those run out."""
    groups = re.split(r"(\d+)", value)
    drawn = [
        part if not part.isdigit() or (len(groups) > 3 and YEAR.fullmatch(part)) else like(chance, part)
        for part in groups
    ]
    return "".join(drawn) + (str(chance.randint(0, 9)) if attempt > WIDEN_AFTER else "")


DRAWS: dict[str, Draw] = {
    "PHONE_NUMBER": phone,
    "IBAN": iban,
    "CREDIT_CARD": card,
    "NATIONAL_ID": national_id,
    "IP_ADDRESS": network_address,
    "DATE_OF_BIRTH": birth_date,
}
