"""The languages that anonymization has rules and word lists for: one data file each, read into one type."""

import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

DATA = Path(__file__).with_name("data")
CODES = ("en", "de", "fr", "es", "it", "nl", "pl", "pt")


@dataclass(frozen=True)
class NumberForm:
    """The form of an official number. `is_valid` checks its checksum. A number that is not telling needs a label before it."""

    entity_type: str
    form: re.Pattern[str]
    is_valid: Callable[[str], bool]
    labels: tuple[str, ...] = ()
    is_telling: bool = True


@dataclass(frozen=True)
class LanguageDefinition:
    """One data file. `words` extend the lists of words.toml, `months` are in every form that is written, twelve names each."""

    code: str
    name: str
    locale: str
    phone_regions: tuple[str, ...]
    months: tuple[tuple[str, ...], ...]
    words: Mapping[str, tuple[str, ...]]
    greetings: tuple[str, ...]
    roles: tuple[str, ...]
    speech: tuple[str, ...]
    organisation_words: tuple[str, ...]
    firm_endings: tuple[str, ...]
    born: tuple[str, ...]
    labels: Mapping[str, tuple[str, ...]]
    numbers: tuple[NumberForm, ...]
    street_first: tuple[str, ...]
    street_last: tuple[str, ...]
    postcode: str
    gendered_endings: tuple[str, ...]


@cache
def load_language(code: str) -> LanguageDefinition | None:
    """The language of a two-letter code (ISO 639-1), or None if it has no data file. The files are checked by a test."""
    path = DATA / f"{code}.toml"
    if code not in CODES or not path.is_file():
        return None
    table = tomllib.loads(path.read_text(encoding="utf-8"))
    words = {name: tuple(items) for name, items in table.pop("words").items()}
    labels = {name: tuple(items) for name, items in table.pop("labels", {}).items()}
    numbers = tuple(map(_number_form, table.pop("numbers", ())))
    months = tuple(map(tuple, table.pop("months")))
    rest: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in table.items()}
    return LanguageDefinition(code=code, months=months, words=words, labels=labels, numbers=numbers, **rest)


def _number_form(table: Mapping[str, Any]) -> NumberForm:
    check = table.get("check", "")
    return NumberForm(
        table["type"],
        re.compile(table["form"]),
        import_module(f"stdnum.{check}").is_valid if check else lambda _: True,
        tuple(table.get("labels", ())),
        table.get("telling", True),
    )
