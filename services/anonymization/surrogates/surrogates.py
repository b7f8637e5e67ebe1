"""Issuing surrogates: names word by word, so that all forms of a name agree everywhere; other values whole."""

import hashlib
import hmac
import random
import re
from collections.abc import Callable, Iterable, Sequence
from copy import copy
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

from faker import Faker

from services.anonymization.domain import Vault
from services.anonymization.recognise.lexicon import Lexicon, fold
from services.anonymization.recognise.tokens import Token, tokenise
from services.anonymization.surrogates.draws import DRAWS, code
from services.anonymization.surrogates.forms import FAMILY, GIVEN, NAME_WORDS, WORD, normal, write_like
from tailor.errors import Reason, ResourceExhausted

LOCAL_POOL_ATTEMPTS = 12
SINGLE_ATTEMPTS = 40
MAX_CANDIDATES = 2_000
UMLAUTS = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "å": "aa", "ø": "oe", "ß": "ss"})


@dataclass
class People:
    """The people of one document: folded given names, surnames, and who bears which."""

    given: set[str] = field(default_factory=set)
    family: set[str] = field(default_factory=set)
    words: dict[str, str] = field(default_factory=dict)
    bearers: dict[tuple[str, str], str] = field(default_factory=dict)

    @classmethod
    def of(cls, names: Iterable[str]) -> "People":
        """Read full names."""
        people = cls()
        for name in names:
            parts = [token.bare for token in tokenise(name) if token.is_capitalised]
            if len(parts) < 2:
                continue
            first, *rest = parts
            if len(first) > 1:
                people.given.add(fold(first))
            people.family.update(map(fold, rest))
            for word in parts:
                people.words[fold(word)] = word
                people.words[fold(word.lower().translate(UMLAUTS))] = word
            people.bearers.setdefault((fold(first)[0], fold(rest[-1])), first)
        return people


class Surrogates:
    """Stand-ins from Faker's names, kept in the vault: a value has one stand-in, whoever asks for it first."""

    def __init__(self, vault: Vault, lexicon: Lexicon, key: bytes) -> None:
        self._vault = vault
        self._lexicon = lexicon
        self._key = key
        self._fakers: dict[str, Any] = {}
        self._lock = Lock()

    def over(self, vault: Vault, key: bytes = b"") -> "Surrogates":
        """The same draws, or those of another key, kept in another vault."""
        other = copy(self)
        other._vault = vault
        other._key = key or self._key
        return other

    def beside(self, text: str, values: Iterable[tuple[str, str]]) -> "Surrogates":
        """For the values, with their types, that were found in a text: what stands in the text becomes nobody's stand-in."""
        return self.over(Beside(self._vault, text, values))

    def person(self, value: str, title: str, people: People) -> str:
        """A name; `title` is the word before it, which may tell gender and that a surname follows."""
        tokens = tokenise(value)
        names = [token for token in tokens if self._is_name(token)] or [
            token for token in tokens if not token.is_capitalised and not self._is_title(token)
        ]
        return self._rebuild(value, tokens, lambda token: self._name(token, names, title, people))

    def client(self, value: str) -> str:
        """An organisation: its own words change, legal form and kind stay."""
        tokens = tokenise(value)
        own = (
            [token for token in tokens if token.is_capitalised and not self._is_kind(token.bare)]
            or [token for token in tokens if token.is_capitalised][:1]
            or tokens[:1]
        )
        return self._rebuild(value, tokens, lambda token: self._own_word(token.bare) if token in own else token.bare)

    def mail(self, value: str, people: People) -> str:
        """An address made of the surrogates of the names in it, under a domain that cannot exist."""
        local, _, domain = value.rpartition("@")
        parts = [
            part if not part.isalnum() else self._mail_word(part.lower(), local.lower(), people)
            for part in re.split(r"([._+-])", local)
        ]
        labels = domain.lower().split(".")
        named = [
            label
            for label in labels[:-1]
            if label not in ("example", "co", "com", "org", "ac", "gov", "net", "www", "mail")
        ] or labels[:1]
        host = ".".join("-".join(self._host_word(word) for word in label.split("-")) for label in named)
        base = "".join(parts)
        key = normal("EMAIL_ADDRESS", value)
        issued = self._vault.issue("EMAIL_ADDRESS", key, value, lambda n: f"{base}{n + 1 if n else ''}@{host}.example")
        return issued.upper() if value.isupper() else issued

    def address(self, value: str) -> str:
        """A street address of the same country; over two lines where the true one has several."""
        locale, key, plain = address_locale(value), normal("ADDRESS", value), " ".join(value.split())
        has_town = any(character.isdigit() for character in value[-9:])
        issued = self._vault.issue("ADDRESS", key, plain, lambda n: self._address(locale, "ADDRESS" + key, n, has_town))
        issued = issued.upper() if value.isupper() else issued
        return issued.replace(", ", "\n", 1) if "\n" in value else issued

    def other(self, entity_type: str, value: str) -> str:
        """A value with a form of its own, written as the value is."""
        key, plain = normal(entity_type, value), " ".join(value.split())
        draw = DRAWS.get(entity_type)

        def propose(attempt: int) -> str:
            chance = self._chance(entity_type, key, attempt)
            return normal(entity_type, draw(chance, key, attempt) if draw else code(chance, plain, attempt))

        return write_like(entity_type, self._vault.issue(entity_type, key, plain, propose), value)

    def _is_name(self, token: Token) -> bool:
        return token.is_capitalised and not token.is_initial and not self._is_title(token)

    def _is_title(self, token: Token) -> bool:
        return any(self._lexicon.has(each, token.bare) for each in ("titles", "titles_male", "titles_female"))

    def _name(self, token: Token, names: list[Token], title: str, people: People) -> str:
        word = token.bare
        if token.is_initial:
            return self._initial(word, names[-1].bare if names else "", people)
        if token not in names or (self._lexicon.has("particles", word) and len(names) > 1 and token != names[0]):
            return word
        if (len(names) > 1 and token == names[0]) or (len(names) == 1 and self._stands_for_given(word, title, people)):
            return self._given(word, title)
        return self._family(word)

    def _stands_for_given(self, word: str, title: str, people: People) -> bool:
        key = fold(word)
        if title or key in people.family:
            return False
        return key in people.given or (self._lexicon.given(word) is not None and not self._lexicon.is_surname(word))

    def _initial(self, letter: str, family: str, people: People) -> str:
        bearer = people.bearers.get((letter[0].lower(), fold(family))) if family else None
        if bearer and len(bearer) > 1:
            return self._given(bearer, "")[0]
        return "".join(
            self._chance("INITIAL", letter + fold(family), 0).choice("ABCDEFGHJKLMNPRST") if part.isalpha() else part
            for part in letter
        )

    def _given(self, word: str, title: str) -> str:
        known = self._lexicon.given(word)
        titled = (
            "m" if self._lexicon.has("titles_male", title) else "f" if self._lexicon.has("titles_female", title) else ""
        )
        gender = titled or (known.gender if known else "")
        locale = known.locale if known else "en_GB"
        pool = self._lexicon.given_names(locale, gender)
        wide = [name for each in ("en_GB", "de_DE", "fr_FR") for name in self._lexicon.given_names(each, gender)]
        return self._issue_word(GIVEN, word, pool, wide)

    def _family(self, word: str) -> str:
        pool = self._lexicon.family_names(self._lexicon.surname_locale(word))
        return self._issue_word(FAMILY, word, pool, self._wide_families())

    def _own_word(self, word: str) -> str:
        return self._issue_word(WORD, word, self._lexicon.family_names("en_GB"), self._wide_families())

    def _wide_families(self) -> list[str]:
        return [
            name for each in ("en_GB", "de_DE", "fr_FR", "nl_NL", "pl_PL") for name in self._lexicon.family_names(each)
        ]

    def _issue_word(self, kind: str, word: str, pool: tuple[str, ...], wide: list[str]) -> str:
        key = fold(word)

        def propose(attempt: int) -> str:
            chance = self._chance(kind, key, attempt)
            near = pool if attempt < LOCAL_POOL_ATTEMPTS else wide
            if attempt < SINGLE_ATTEMPTS and "-" not in word:
                return chance.choice(near)
            return f"{chance.choice(near)}-{chance.choice(near)}"

        issued = self._vault.issue(kind, key, word, propose)
        if word.islower():
            return issued.lower()
        return issued.upper() if word.isupper() and len(word) > 1 else issued

    def _mail_word(self, part: str, local: str, people: People) -> str:
        if self._lexicon.has("mail_roles", part) or part.isdigit():
            return part
        if len(part) == 1:
            family = next((people.words[other] for other in re.split(r"[._+-]", local) if other in people.words), "")
            return ascii_word(self._initial(part, family, people))
        word = people.words.get(part)
        if word is None and part[1:] in people.words:
            family = people.words[part[1:]]
            return ascii_word(self._initial(part[0], family, people)) + ascii_word(self._family(family))
        is_given = fold(word or part) in people.given or (word is None and self._lexicon.given(part) is not None)
        return ascii_word(
            self._given(word or part.capitalize(), "") if is_given else self._family(word or part.capitalize())
        )

    def _host_word(self, word: str) -> str:
        return (
            word
            if self._is_kind(word) or self._lexicon.has("mail_roles", word) or word.isdigit() or not word
            else ascii_word(self._own_word(word.capitalize()))
        )

    def _is_kind(self, word: str) -> bool:
        lists = ("kinds_last", "kinds_first", "connectors", "legal_forms", "never")
        return any(self._lexicon.has(each, word) for each in lists) or word in ("o.o", "z")

    def _rebuild(self, value: str, tokens: Sequence[Token], change: Callable[[Token], str]) -> str:
        built, end = [], 0
        for token in tokens:
            built += [value[end : token.start], change(token)]
            end = token.bare_end
        return "".join(built) + value[end:]

    def _address(self, locale: str, key: str, attempt: int, has_town: bool) -> str:
        with self._lock:
            faker = (
                self._fakers.setdefault(locale, Faker(locale)) if locale not in self._fakers else self._fakers[locale]
            )
            faker.seed_instance(self._chance("ADDRESS", key, attempt).getrandbits(64))
            street = " ".join(faker.street_address().split())
            town = (
                f"{faker.city()} {faker.postcode()}"
                if locale in ("en_GB", "en_IE")
                else f"{faker.postcode()} {faker.city()}"
            )
            if locale == "en_US":
                town = f"{faker.city()}, {faker.state_abbr()} {faker.postcode()}"
        return f"{street}, {town}" if has_town or locale not in ("en_GB", "en_IE", "en_US") else street

    def _chance(self, kind: str, key: str, attempt: int) -> random.Random:
        seed = hmac.digest(self._key, f"{kind}\x1f{key}\x1f{attempt}".encode(), hashlib.sha256)
        return random.Random(seed)  # noqa: S311 - the seed is keyed; the draw need not be


class Beside:
    """A vault that issues nothing that stands in a text: no word of it as a name, none of the values found in it."""

    def __init__(self, vault: Vault, text: str, values: Iterable[tuple[str, str]]) -> None:
        self._vault = vault
        self._text = text
        self._words = {fold(word) for word in set(re.findall(r"[^\W_]+", text))}
        self._values = {(kind, normal(kind, value)) for kind, value in values}

    def issue(self, entity_type: str, key: str, value: str, propose: Callable[[int], str]) -> str:
        """The surrogate of a value, issued at first sight."""
        elsewhere = (
            candidate for candidate in map(propose, range(MAX_CANDIDATES)) if not self._holds(entity_type, candidate)
        )

        def next_one(_: int) -> str:
            candidate = next(elsewhere, None)
            if candidate is None:
                raise ResourceExhausted(
                    Reason.NO_SURROGATE_LEFT, f"No unused surrogate of type {entity_type} was found."
                )
            return candidate

        return self._vault.issue(entity_type, key, value, next_one)

    def reveal(self, entity_type: str, surrogate: str) -> str | None:
        """The true value."""
        return self._vault.reveal(entity_type, surrogate)

    def _holds(self, entity_type: str, candidate: str) -> bool:
        if entity_type in NAME_WORDS:
            return not self._words.isdisjoint(fold(candidate).split("-"))
        return (entity_type, normal(entity_type, candidate)) in self._values or candidate in self._text


def address_locale(value: str) -> str:
    """The locale whose form a street address has."""
    if re.search(r"\b[A-Z]{2} \d{5}\b", value):
        return "en_US"
    if re.search(r"\b[A-Z]\d[\dW] [A-Z\d]{4}\b", value):
        return "en_IE"
    if re.search(r"\b(?:rue|avenue|quai|chemin|boulevard|place|impasse|allée|route)\b", value) and re.search(
        r"\b\d{5}\b", value
    ):
        return "fr_FR"
    return (
        "de_DE"
        if re.search(r"\b\d{4,5} [^\W\d]", value) and not re.search(r"[A-Z]\d[A-Z\d]? \d[A-Z]{2}\b", value)
        else "en_GB"
    )


def ascii_word(word: str) -> str:
    """A name as mail addresses write it."""
    return "".join(letter for letter in fold(word) if letter.isascii() and (letter.isalnum() or letter == "-"))
