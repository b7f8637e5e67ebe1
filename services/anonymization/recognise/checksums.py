"""Checksums that distinguish real numbers from lookalikes. Each function takes the number as it is written in a text.

Only the checksum counts, so the functions of `stdnum` that also check structure, country or birth date are not used: a number with a
typing error elsewhere is still personal.
"""

from stdnum import luhn
from stdnum.fr import nir
from stdnum.gb import nhs
from stdnum.iso7064 import mod_11_10, mod_97_10
from stdnum.pl import pesel


def digits(value: str) -> str:
    return "".join(letter for letter in value if letter.isdigit())


def is_luhn(value: str) -> bool:
    """Payment cards (ISO/IEC 7812, Luhn). A row of one repeated digit is invalid."""
    number = digits(value)
    return luhn.is_valid(number) and len(set(number)) > 1


def is_iban(value: str) -> bool:
    """Bank accounts (ISO 13616, mod 97-10)."""
    plain = "".join(letter for letter in value if letter.isalnum()).upper()
    return bool(mod_97_10.is_valid(plain[4:] + plain[:4]))


def is_pesel(value: str) -> bool:
    """Polish national ids, 11 digits."""
    return bool(pesel.calc_check_digit(value[:-1]) == value[-1])


def is_nir(value: str) -> bool:
    """French social security numbers, Corsican ones (2A, 2B) included."""
    return bool(nir.is_valid("".join(value.split())))


def is_idnr(value: str) -> bool:
    """German tax ids (ISO 7064 mod 11, 10). Among the first ten digits, one must repeat."""
    number = digits(value)
    return number[0] != "0" and len(set(number[:10])) < 10 and bool(mod_11_10.is_valid(number))


def is_nhs(value: str) -> bool:
    """British NHS numbers (mod 11). A row of one repeated digit is invalid."""
    number = digits(value)
    return bool(nhs.is_valid(number)) and len(set(number)) > 1


def is_pension_number(value: str) -> bool:
    """German pension insurance numbers (§ 147 SGB VI), which `stdnum` does not know."""
    plain = "".join(value.split()).upper()
    letter = f"{ord(plain[8]) - ord('A') + 1:02d}"
    weights = (2, 1, 2, 5, 7, 1, 2, 1, 2, 1, 2, 1)
    products = (weight * int(digit) for weight, digit in zip(weights, plain[:8] + letter + plain[9:11], strict=True))
    return sum(sum(divmod(product, 10)) for product in products) % 10 == int(plain[11])


def is_network_address(value: str) -> bool:
    """True if every part of an IPv4 address is a byte. Leading zeros are allowed."""
    return all(int(part) < 256 for part in value.split("/", maxsplit=1)[0].split("."))


def is_place(value: str) -> bool:
    """True for a latitude and a longitude in degrees."""
    latitude, longitude = (float(part) for part in value.replace(";", ",").split(",")[:2])
    return abs(latitude) <= 90 and abs(longitude) <= 180
