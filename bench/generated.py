"""Business texts made from templates and Faker's values, with the place of every personal value."""

import random
import re
import string
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from faker import Faker

from services.anonymization.recognise.checksums import is_idnr, is_nhs, is_nir

TEMPLATES = Path(__file__).with_name("data") / "templates.txt"
SLOT = re.compile(r"\{(\w+)(?:\.(\w+))?\}")
# English texts have values of these locales, German texts German ones.
ENGLISH_LOCALES = ("en_GB", "en_US", "fr_FR", "de_DE")


@dataclass(frozen=True)
class Gold:
    """A text, and [start, end) and type of each personal value in it."""

    name: str
    language: str
    text: str
    spans: tuple[tuple[int, int, str], ...]


@dataclass
class Cast:
    """The people and things of one document. The same slot always gives the same value."""

    locale: str
    seed: int
    fixed: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)
        self.faker: Any = Faker(self.locale)
        self.faker.seed_instance(self.seed)

    def value(self, slot: str) -> str:
        """The value of a slot such as `person1`, drawn on first use."""
        if slot not in self.fixed:
            self.fixed[slot] = self._draw(slot.rstrip(string.digits))
        return self.fixed[slot]

    def _draw(self, kind: str) -> str:
        return MAKERS[kind](self)


def person(cast: Cast) -> str:
    """A given name and a surname."""
    return f"{cast.faker.first_name()} {cast.faker.last_name()}"


def address(cast: Cast) -> str:
    """An address over two or more lines."""
    return str(cast.faker.address())


def one_line(cast: Cast) -> str:
    """An address on one line."""
    return ", ".join(str(cast.faker.address()).split("\n"))


def nhs(cast: Cast) -> str:
    """An NHS number with a valid checksum."""
    while True:
        plain = f"{cast.chance.randint(4_000_000_000, 7_999_999_999)}"
        if is_nhs(plain):
            return f"{plain[:3]} {plain[3:6]} {plain[6:]}"


def steuer_id(cast: Cast) -> str:
    """A German tax id with a valid checksum."""
    while True:
        plain = f"{cast.chance.randint(10_000_000_000, 99_999_999_999)}"
        if is_idnr(plain):
            return plain


def nir(cast: Cast) -> str:
    """A French social security number with a valid checksum."""
    draw = cast.chance.randint
    body = f"{draw(1, 2)}{draw(40, 99)}{draw(1, 12):02d}{draw(10, 95)}{draw(1, 990):03d}{draw(1, 990):03d}"
    whole = f"{body}{97 - int(body) % 97:02d}"
    if not is_nir(whole):
        raise AssertionError(whole)
    return whole


def nino(cast: Cast) -> str:
    """A British National Insurance number."""
    letters = cast.chance.choice("ABCEHJKLMPRSTWXYZ") + cast.chance.choice("ABCEHJKLMPRSTWXYZ")
    parts = " ".join(f"{cast.chance.randint(0, 99):02d}" for _ in range(3))
    return f"{letters} {parts} {cast.chance.choice('ABCD')}"


def secret(cast: Cast) -> str:
    """A key in a provider's form."""
    letters = string.ascii_letters + string.digits
    return cast.chance.choice(("ghp_", "sk_live_")) + "".join(cast.chance.choices(letters, k=36))


def password(cast: Cast) -> str:
    """A password that a person might choose."""
    return str(cast.faker.first_name()) + str(cast.chance.randint(10, 9999)) + cast.chance.choice("!#%&")


def birth(cast: Cast) -> str:
    """A date of birth in one of several forms."""
    born = cast.faker.date_of_birth(minimum_age=18, maximum_age=80)
    german = ("%d.%m.%Y",) if cast.locale == "de_DE" else ("%d/%m/%Y", "%Y-%m-%d", "%d %B %Y", "%B %d, %Y")
    return str(born.strftime(cast.chance.choice(german)))


def national_id(cast: Cast) -> str:
    """A national id of the locale."""
    return {"en_GB": nino, "en_US": lambda person: str(person.faker.ssn()), "fr_FR": nir, "de_DE": steuer_id}[
        cast.locale
    ](cast)


MAKERS: dict[str, Callable[[Cast], str]] = {
    "person": person,
    "org": lambda cast: str(cast.faker.company()),
    "address": address,
    "line": one_line,
    "phone": lambda cast: str(cast.faker.phone_number()),
    "iban": lambda cast: str(cast.faker.iban()),
    "card": lambda cast: str(cast.faker.credit_card_number()),
    "nhs": nhs,
    "id": national_id,
    "dob": birth,
    "ip": lambda cast: str(cast.faker.ipv4()),
    "inet": lambda cast: str(cast.faker.ipv6()),
    "mac": lambda cast: str(cast.faker.mac_address()),
    "secret": secret,
    "password": password,
    "place": lambda cast: f"{cast.faker.latitude()}, {cast.faker.longitude()}",
    "staff": lambda cast: f"E{cast.chance.randint(10_000, 99_999)}",
    "passport": lambda cast: f"{cast.chance.randint(100_000_000, 999_999_999)}",
    "account": lambda cast: f"{cast.chance.randint(10_000_000, 99_999_999)}",
    "sort": lambda cast: "-".join(f"{cast.chance.randint(10, 99)}" for _ in range(3)),
}
TYPES = {
    "person": "PERSON", "org": "CLIENT", "address": "ADDRESS", "line": "ADDRESS", "phone": "PHONE_NUMBER", "iban": "IBAN", "card": "CREDIT_CARD",
    "nhs": "NATIONAL_ID", "id": "NATIONAL_ID", "passport": "NATIONAL_ID", "dob": "DATE_OF_BIRTH", "ip": "IP_ADDRESS", "inet": "IP_ADDRESS", "mac": "IP_ADDRESS",
    "secret": "SECRET", "password": "SECRET", "place": "COORDINATES", "staff": "EMPLOYEE_CODE", "account": "ACCOUNT_NUMBER", "sort": "ACCOUNT_NUMBER",
}  # fmt: skip


def generate(draws: int, seed: int = 90_210) -> list[Gold]:
    """Every template filled `draws` times in each locale that fits its language."""
    documents: list[Gold] = []
    for name, language, body in read_templates():
        for locale in ("de_DE",) if language == "de" else ENGLISH_LOCALES:
            for draw in range(draws):
                cast = Cast(locale, seed + len(documents))
                text, spans = fill(body, cast)
                documents.append(Gold(f"{name}/{locale}/{draw}", language, text, spans))
    return documents


def read_templates() -> Iterator[tuple[str, str, str]]:
    """Name, language and body of each template."""
    for part in re.split(r"(?m)^%%% ", TEMPLATES.read_text(encoding="utf-8"))[1:]:
        name, body = part.split("\n", 1)
        yield name, "de" if name.startswith("de-") else "en", body


def fill(body: str, cast: Cast) -> tuple[str, tuple[tuple[int, int, str], ...]]:
    """The text with values in place of slots, and their places."""
    text, spans, place = "", [], 0
    for slot in SLOT.finditer(body):
        text += body[place : slot.start()]
        value = _shape(cast.value(slot[1]), slot[2])
        kind = "EMAIL_ADDRESS" if slot[2] == "mail" else TYPES[slot[1].rstrip(string.digits)]
        spans.append((len(text), len(text) + len(value), kind))
        text += value
        place = slot.end()
    return text + body[place:], tuple(spans)


def _shape(value: str, form: str | None) -> str:
    first, _, last = value.partition(" ")
    plain = re.sub(r"[^a-z.]", "", f"{first}.{last}".lower().replace(" ", ""))
    return {
        None: value,
        "first": first,
        "last": last,
        "initial": f"{first[0]}. {last}",
        "reversed": f"{last}, {first}",
        "upper": value.upper(),
        "mail": f"{plain}@example.com",
    }[form]
