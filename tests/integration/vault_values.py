"""Two hundred values of seven types, which several processes draw at the same time."""

from random import Random

from services.anonymization.surrogates.generators import card, iban

LETTERS = "abcdefghij"


def _values() -> list[tuple[str, str]]:
    chance = Random(7)
    values = [("PERSON", f"Zora{first} Quill{second}") for first in "abcdefg" for second in LETTERS]
    values += [("EMAIL_ADDRESS", f"zora{letter}.quill{letter}@northdock{letter}.com") for letter in LETTERS]
    values += [("ADDRESS", f"{number} Quarry Lane, Tarnbridge TB4 2QN") for number in range(1, 21)]
    values += [("PHONE_NUMBER", f"+44 20 7946 {number:04d}") for number in range(100, 140)]
    values += [("IBAN", iban(chance, "GB33 BUKB 2020 1555 5555 55", 0)) for _ in range(20)]
    values += [("CREDIT_CARD", card(chance, "4111 1111 1111 1111", 0)) for _ in range(20)]
    values += [("DATE_OF_BIRTH", f"{day} November 1996") for day in range(1, 21)]
    return values


VALUES = _values()
