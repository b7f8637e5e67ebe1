"""Texts by other hands for the bench of anonymisation: Presidio's own generator, names of Debian's change logs, Faker's numbers, manuals.

They are made or read when the bench runs. Tuning used other seeds and other packages than the figures: TUNING_SEED, and packages whose
name has an even digest.
"""

import gzip
import hashlib
import importlib.util
import os
import random
import re
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import phonenumbers
from faker import Faker

from bench.generated import Gold

TUNING_SEED, REPORTED_SEED = 7, 20_261_127
SENTENCES = 600
# Types of the generator that the default policy keeps, or that name no value of a person or company.
KEPT = frozenset(["GPE", "DATE_TIME", "NRP", "AGE", "TITLE", "DOMAIN_NAME", "ZIP_CODE"])
TYPES = {
    "ORGANIZATION": "CLIENT",
    "STREET_ADDRESS": "ADDRESS",
    "IBAN_CODE": "IBAN",
    "US_SSN": "NATIONAL_ID",
    "US_DRIVER_LICENSE": "NATIONAL_ID",
}
CHANGELOGS = Path("/usr/share/doc")
MANUALS = Path("/usr/share/man/man1")
TRAILER = re.compile(r"(?m)^ -- (?P<name>[^<\n]{5,40}) <(?P<mail>[^>\s]+@[^>\s]+)>")
PERSON_NAME = re.compile(r"[^\W\d_][\w'’.-]+(?: [^\W\d_][\w'’.-]*){1,3}")
MAX_PEOPLE = 240
MAX_MANUAL_CHARS = 12_000
CARRIERS = (
    "Could you ask {name} about the invoice? The last mail came from {mail}.",
    "Hi {first},\n\nthe contract is with {name} now; copy {mail} on the next draft.\n\nThanks",
    "{name} called this morning. {first} wants the figures before the board meets.",
    "Minutes. Present: {name}, the finance team. Action: {first} to send the report.",
    "I met {name} at the site on Monday and gave {first} the keys. Write to {mail} if they are lost.",
    "The complaint by {name} ({mail}) was upheld.",
    "Please remind {name} that the lease ends in June.",
    "Approved by {name}, who joined the company in 2019.",
)
# Real mails in small letters keep the mail address's form.
SMALL_CARRIERS = (
    "can you ask {name} about the invoice? thanks",
    "hi {first}, did {name} send the figures?",
    "pls cc {name} on this, i spoke to {first} yesterday",
    "{name} said the order is late",
    "met {name} today, all good",
    "tell {first} that {name} has the keys",
)
PHONE_REGIONS = ("GB", "US", "DE", "FR", "ES", "IT", "NL", "PL", "PT", "AT", "CH", "BE", "SE", "DK", "IE")
NUMBER_LOCALES = ("en_GB", "en_US", "de_DE", "fr_FR", "es_ES", "it_IT", "nl_NL", "pl_PL", "pt_PT")


def presidio_sentences(seed: int = REPORTED_SEED, count: int = SENTENCES) -> list[Gold]:
    """Sentences of `presidio-evaluator`'s generator over all its templates."""
    from presidio_evaluator.data_generator import PresidioSentenceFaker
    from presidio_evaluator.data_generator.presidio_sentence_faker import presidio_templates_file_path

    # Its templates write line breaks as two characters; some have the placeholder of a non-existent provider.
    lines = presidio_templates_file_path.read_text(encoding="utf-8").splitlines()
    templates = [line.strip().replace("\\n", "\n").replace("\\,", ",") for line in lines]
    maker = PresidioSentenceFaker("en_US", lower_case_ratio=0.05, sentence_templates=templates, random_seed=seed)
    return [
        Gold(
            f"presidio/{place}",
            "en",
            sentence.full_text,
            tuple(
                (span.start_position, span.end_position, TYPES.get(span.entity_type, span.entity_type))
                for span in sentence.spans
                if span.entity_type not in KEPT
            ),
        )
        for place, sentence in enumerate(maker.generate_new_fake_sentences(count))
    ]


def has_generator() -> bool:
    """True if `presidio-evaluator` is installed."""
    return importlib.util.find_spec("presidio_evaluator") is not None


def is_reported(package: str) -> bool:
    """True for a package that tuning did not see."""
    return hashlib.sha256(package.encode()).digest()[0] % 2 == 1


def changelog_people(*, reported: bool = True) -> list[tuple[str, str]]:
    """Names and mail addresses of people who signed entries of Debian's change logs, each once."""
    people: dict[str, str] = {}
    for path in sorted(CHANGELOGS.glob("*/changelog*.gz")):
        if is_reported(path.parent.name) is not reported:
            continue
        with gzip.open(path, "rt", encoding="utf-8", errors="ignore") as file:
            for match in TRAILER.finditer(file.read(400_000)):
                if PERSON_NAME.fullmatch(match["name"]) and "ebian" not in match["name"]:
                    people.setdefault(match["name"], match["mail"])
    return sorted(people.items(), key=lambda person: hashlib.sha256(person[0].encode()).digest())[:MAX_PEOPLE]


def changelog_prose(*, reported: bool = True, small: bool = False) -> list[Gold]:
    """The people of change logs in sentences of business mails; with `small`, in small letters and with names alone as values."""
    carriers = SMALL_CARRIERS if small else CARRIERS
    golds = []
    for place, (name, mail) in enumerate(changelog_people(reported=reported)):
        values = {"name": name, "mail": mail, "first": name.split()[0]}
        if small:
            values = {slot: value.lower() for slot, value in values.items()}
        golds.append(_fill(f"changelog/{place}", carriers[place % len(carriers)], values))
    return golds


def _fill(name: str, carrier: str, values: dict[str, str]) -> Gold:
    text, spans, place = "", [], 0
    for slot in re.finditer(r"\{(\w+)\}", carrier):
        text += carrier[place : slot.start()]
        value = values[slot[1]]
        spans.append((len(text), len(text) + len(value), "EMAIL_ADDRESS" if slot[1] == "mail" else "PERSON"))
        text += value
        place = slot.end()
    return Gold(name, "en", text + carrier[place:], tuple(spans))


def numbers(seed: int = REPORTED_SEED) -> list[Gold]:
    """Values with a fixed form by Faker and phonenumbers: mail addresses, accounts, cards, network addresses, phones with a country code."""
    golds = []
    for locale in NUMBER_LOCALES:
        faker = Faker(locale)
        faker.seed_instance(seed)
        for kind, carrier, make in (
            ("EMAIL_ADDRESS", "Write to {} today.", faker.ascii_safe_email),
            ("IBAN", "Please pay into {} by Friday.", faker.iban),
            ("CREDIT_CARD", "The card {} was charged twice.", faker.credit_card_number),
            ("IP_ADDRESS", "The login came from {}.", faker.ipv4),
            ("IP_ADDRESS", "The login came from {}.", faker.ipv6),
        ):
            for number in range(4):
                golds.append(_value(f"numbers/{kind}/{locale}/{number}", carrier, kind, str(make())))
    for region in PHONE_REGIONS:
        example = phonenumbers.example_number_for_type(region, phonenumbers.PhoneNumberType.MOBILE)
        assert example is not None
        written = phonenumbers.format_number(example, phonenumbers.PhoneNumberFormat.INTERNATIONAL)
        golds.append(_value(f"numbers/PHONE_NUMBER/{region}", "Call {} after six.", "PHONE_NUMBER", written))
    return golds


def _value(name: str, carrier: str, kind: str, value: str) -> Gold:
    start = carrier.index("{}")
    return Gold(name, "en", carrier.format(value), ((start, start + len(value), kind),))


def in_capitals(golds: list[Gold]) -> list[Gold]:
    """The same texts in capitals, without those whose length changes."""
    return [replace(gold, text=gold.text.upper()) for gold in golds if len(gold.text.upper()) == len(gold.text)]


def manuals(*, reported: bool = True, count: int = 60) -> Iterator[tuple[str, str]]:
    """Manual pages by name, as a reader sees them."""
    names = sorted({path.name.split(".")[0] for path in MANUALS.glob("*.1.gz") if not path.name.startswith("gcloud")})
    chosen = [name for name in names if is_reported(name) is reported]
    random.Random(REPORTED_SEED).shuffle(chosen)
    for name in chosen[:count]:
        environment = os.environ | {"MANWIDTH": "90", "MAN_KEEP_FORMATTING": ""}
        page = subprocess.run(["man", "-P", "cat", name], capture_output=True, text=True, env=environment, check=False)
        text = re.sub(r".\x08", "", page.stdout)[:MAX_MANUAL_CHARS]
        if len(text) > 1_000:
            yield name, text
