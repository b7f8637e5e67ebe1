"""Checks that tell a number with a meaning from one that only looks like it. Each takes the text as it stands."""

MOD_11_10 = 10


def digits(value: str) -> str:
    """The digits alone."""
    return "".join(letter for letter in value if letter.isdigit())


def is_luhn(value: str) -> bool:
    """The check of payment cards; a row of the same digit is none."""
    numbers = [int(digit) for digit in reversed(digits(value))]
    total = sum(number if place % 2 == 0 else sum(divmod(number * 2, 10)) for place, number in enumerate(numbers))
    return total % 10 == 0 and len(set(numbers)) > 1


def is_iban(value: str) -> bool:
    """The check of account numbers (ISO 7064 mod 97)."""
    plain = "".join(letter for letter in value if letter.isalnum()).upper()
    return int("".join(str(int(letter, 36)) for letter in plain[4:] + plain[:4])) % 97 == 1


def is_pesel(value: str) -> bool:
    """The check of Polish national ids."""
    weights = (1, 3, 7, 9, 1, 3, 7, 9, 1, 3, 1)
    return sum(weight * int(digit) for weight, digit in zip(weights, value, strict=True)) % 10 == 0


def is_insee(value: str) -> bool:
    """The check of French national ids; Corsica counts as 19 and 18."""
    plain = "".join(value.split()).upper().replace("2A", "19").replace("2B", "18")
    return plain.isdigit() and int(plain[13:]) == 97 - int(plain[:13]) % 97


def is_steuer_id(value: str) -> bool:
    """The check of German tax ids (ISO 7064 mod 11, 10); in the first ten digits some digit repeats."""
    plain = digits(value)
    product = MOD_11_10
    for digit in plain[:10]:
        product = (((int(digit) + product) % 10 or 10) * 2) % 11
    return plain[0] != "0" and len(set(plain[:10])) < MOD_11_10 and (11 - product) % 10 == int(plain[10])


def is_nhs(value: str) -> bool:
    """The check of NHS numbers (mod 11)."""
    plain = digits(value)
    check = 11 - sum((10 - place) * int(digit) for place, digit in enumerate(plain[:9])) % 11
    return check % 11 == int(plain[9]) and len(set(plain)) > 1


def is_pension_number(value: str) -> bool:
    """The check of German pension insurance numbers."""
    plain = "".join(value.split()).upper()
    letter = f"{ord(plain[8]) - ord('A') + 1:02d}"
    weights = (2, 1, 2, 5, 7, 1, 2, 1, 2, 1, 2, 1)
    products = (weight * int(digit) for weight, digit in zip(weights, plain[:8] + letter + plain[9:11], strict=True))
    return sum(sum(divmod(product, 10)) for product in products) % 10 == int(plain[11])


def is_network_address(value: str) -> bool:
    """True where every part of a network address is a byte."""
    return all(int(part) < 256 for part in value.split("/", maxsplit=1)[0].split("."))


def is_place(value: str) -> bool:
    """True for a latitude and a longitude."""
    latitude, longitude = (float(part) for part in value.replace(";", ",").split(",")[:2])
    return abs(latitude) <= 90 and abs(longitude) <= 180
