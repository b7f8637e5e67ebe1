"""Checksums: valid numbers are accepted, and every typing error of one digit is detected."""

import random
from collections.abc import Callable

import pytest

from services.anonymization.recognise.checksums import (
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

VALID: list[tuple[Callable[[str], bool], str]] = [
    (is_luhn, "4111 1111 1111 1111"),
    (is_luhn, "3782-822463-10005"),
    (is_luhn, "588954075226"),
    (is_iban, "GB33 BUKB 2020 1555 5555 55"),
    (is_iban, "DE89370400440532013000"),
    (is_iban, "FR14 2004 1010 0505 0001 3M02 606"),
    (is_pesel, "90031512348"),
    (is_nir, "2 55 08 14 168 025 38"),
    (is_idnr, "86 095 742 719"),
    (is_nhs, "943 476 5919"),
    (is_nhs, "943-476-5919"),
    (is_pension_number, "65 170839 J 003"),
]


def weighted_sum(number: str, weights: list[int]) -> int:
    return sum(weight * int(digit) for weight, digit in zip(weights, number, strict=True))


@pytest.mark.parametrize(("check", "number"), VALID)
def test_accepts_valid_numbers_and_detects_any_wrong_digit(check: Callable[[str], bool], number: str) -> None:
    assert check(number)
    for place, digit in enumerate(number):
        # Letters and, for the pension number's cross sum, some digits may be exchanged.
        if digit.isdigit() and check is not is_pension_number:
            others = (number[:place] + other + number[place + 1 :] for other in "0123456789" if other != digit)
            assert not any(map(check, others)), place


def test_agrees_with_the_definitions_on_random_numbers() -> None:
    chance = random.Random(14)
    for _ in range(3_000):
        eleven = str(chance.randint(10**10, 10**11 - 1))
        assert is_pesel(eleven) == (weighted_sum(eleven, [1, 3, 7, 9, 1, 3, 7, 9, 1, 3, 1]) % 10 == 0)
        ten = eleven[:10]
        assert is_nhs(ten) == (weighted_sum(ten, list(range(10, 0, -1))) % 11 == 0)
        thirteen = f"2{eleven[1:5]}{chance.choice(('2A', '2B', '75'))}{eleven[5:]}"
        base = int(thirteen.replace("2A", "19").replace("2B", "18"))
        control = chance.choice((97 - base % 97, chance.randint(0, 97)))
        assert is_nir(f"{thirteen}{control:02d}") == (control == 97 - base % 97)


@pytest.mark.parametrize(
    ("check", "number"),
    [
        (is_luhn, "0000 0000 0000 0000"),
        (is_nhs, "000 000 0000"),
        (is_idnr, "01 234 567 890"),
        (is_network_address, "10.0.0.256"),
        (is_place, "91.0000, 10.0000"),
    ],
)
def test_rejects_lookalikes(check: Callable[[str], bool], number: str) -> None:
    assert not check(number)


def test_only_the_checksum_counts() -> None:
    # No country has the code XX, and no month the number 19.
    assert is_iban("XX42 1234 5678 9012 34")
    assert is_pesel("90191512347")


def test_accepts_corsican_social_security_numbers() -> None:
    assert is_nir("2 55 08 2A 168 025 97") and is_nir("2 55 08 2B 168 025 27")


def test_a_network_address_and_a_place_have_bounds() -> None:
    assert is_network_address("10.24.8.0/24") and is_place("50.8225; -0.1372")
