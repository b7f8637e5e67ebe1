"""Surrogates: names word by word, so that all forms of a name agree everywhere; other values as a whole."""

import hashlib
import hmac
import random
import re
from collections.abc import Callable, Iterable, Sequence
from copy import copy
from itertools import pairwise
from threading import Lock
from typing import Any

from faker import Faker

from services.anonymization.ports import Issuer
from services.anonymization.recognise.lexicon import Lexicon, fold
from services.anonymization.recognise.tokens import Token, tokenise
from services.anonymization.surrogates.forms import (
    FAMILY,
    GIVEN,
    MAIL,
    NAME_WORDS,
    PERSON,
    PHONE,
    WORD,
    normal,
    repeats,
    write_like,
)
from services.anonymization.surrogates.generators import DRAWS, code
from services.anonymization.surrogates.people import People
from tailor.errors import Reason, ResourceExhausted

# The locale of a language's names, towns and streets. Others have British ones.
HOMES = {
    "en": "en_GB", "de": "de_DE", "fr": "fr_FR", "es": "es_ES", "it": "it_IT", "nl": "nl_NL", "pl": "pl_PL", "pt": "pt_PT",
}  # fmt: skip
LOCAL_POOL_ATTEMPTS = 12
SINGLE_ATTEMPTS = 40
MAX_CANDIDATES = 2_000
WIDE_GIVEN_LOCALES = ("en_GB", "de_DE", "fr_FR")
WIDE_FAMILY_LOCALES = ("en_GB", "de_DE", "fr_FR", "nl_NL", "pl_PL")
# Parts of a mail domain that name nobody.
PUBLIC_LABELS = ("example", "co", "com", "org", "ac", "gov", "net", "www", "mail")
# True for a type and the normal form of a suppressed value.
IsSuppressed = Callable[[str, str], bool]


def _nobody(entity_type: str, form: str) -> bool:
    del entity_type, form
    return False


class DocumentContent:
    """The words and values of one document. None of the words may become a name, none of the values a surrogate."""

    def __init__(self, text: str, values: Iterable[tuple[str, str]]) -> None:
        self._text = text
        self._words = {fold(word) for word in set(re.findall(r"[^\W_]+", text))}
        self._values = {(kind, normal(kind, value)) for kind, value in values}

    def contains(self, entity_type: str, candidate: str) -> bool:
        """True if the document already contains the candidate."""
        if entity_type in NAME_WORDS:
            return not self._words.isdisjoint(fold(candidate).split("-"))
        return (entity_type, normal(entity_type, candidate)) in self._values or candidate in self._text


class Surrogates:
    """Draws surrogates from Faker's names. The issuer stores them, so that a value has the same one for every caller.

    `issued` holds the (type, surrogate) pairs given so far: full names and the words of names. Suppressed values are masked.
    """

    def __init__(
        self, issuer: Issuer, lexicon: Lexicon, key: bytes, suppressed: Callable[[], IsSuppressed] = lambda: _nobody
    ) -> None:
        self.issued: set[tuple[str, str]] = set()
        self._issuer = issuer
        self._language = lexicon.language
        self._lexicon = lexicon
        self._key = key
        self._suppressed = suppressed
        self._is_suppressed: IsSuppressed = _nobody
        self._content = DocumentContent("", ())
        self._fakers: dict[str, Any] = {}
        self._lock = Lock()

    def with_issuer(self, issuer: Issuer, key: bytes = b"") -> "Surrogates":
        """The same surrogates, or those of another key, stored by another issuer."""
        other = copy(self)
        other.issued = set()
        other._issuer = issuer
        other._key = key or self._key
        return other

    def in_language(self, language: str, lexicon: Lexicon) -> "Surrogates":
        """The same surrogates for a section in a language: names, towns and streets of its country unless the value has another's form.

        `issued` is shared.
        """
        if language == self._language and lexicon is self._lexicon:
            return self
        section = copy(self)
        section._language = language
        section._lexicon = lexicon
        return section

    @property
    def lexicon(self) -> Lexicon:
        """The words of the section's language."""
        return self._lexicon

    def for_document(self, text: str, values: Iterable[tuple[str, str]]) -> "Surrogates":
        """Surrogates for one document, with an empty `issued`. Reads who is suppressed now.

        `values` are the (type, value) pairs found in the text. Nothing that the text contains becomes a surrogate.
        """
        document = copy(self)
        document.issued = set()
        document._content = DocumentContent(text, values)
        document._is_suppressed = self._suppressed()
        return document

    def is_suppressed(self, entity_type: str, value: str, people: People) -> bool:
        """True if a value of a person is suppressed, or names somebody who is."""
        if entity_type == PERSON:
            return self._is_suppressed_person(self._names(value), value, people)
        if entity_type == MAIL:
            return self._is_suppressed_mail(value, people)
        return entity_type == PHONE and self._is_suppressed(PHONE, normal(PHONE, value))

    def note(self, entity_type: str, surrogate: str) -> None:
        """Add a surrogate that the document already contains to `issued`."""
        if entity_type != PERSON:
            self.issued.add((entity_type, surrogate))
            return
        names = self._names(surrogate)
        if len(names) > 1:
            given, family = names[0].bare, names[-1].bare
            self.issued |= {(PERSON, f"{given} {family}"), (GIVEN, given), (FAMILY, family)}

    def person(self, value: str, title: str, people: People) -> str:
        """A name. The `title` before it, if any, tells the gender and that a surname follows."""
        tokens, names = tokenise(value), self._names(value)
        if self._is_suppressed_person(names, value, people):
            return f"[{PERSON}]"
        small = [token for token in tokens if not token.is_capitalised and not self._lexicon.has_title(token.bare)]
        surrogate = self._rebuild(value, tokens, lambda token: self._name(token, names or small, title, people))
        if len(names) > 1:
            self._record_full_name(names[0].bare, names[-1].bare, title)
        return surrogate

    def client(self, value: str) -> str:
        """An organisation: its own words change, its legal form and kind stay."""
        tokens = tokenise(value)
        own_tokens = (
            [token for token in tokens if token.is_capitalised and not self._is_kind(token.bare)]
            or [token for token in tokens if token.is_capitalised][:1]
            or tokens[:1]
        )
        return self._rebuild(
            value, tokens, lambda token: self._own_word(token.bare) if token in own_tokens else token.bare
        )

    def mail(self, value: str, people: People) -> str:
        """An address built from the surrogates of the names in it, under a domain that cannot exist."""
        if self._is_suppressed_mail(value, people):
            return f"[{MAIL}]"
        local, _, domain = value.rpartition("@")
        parts = [
            part if not part.isalnum() else self._mail_word(part.lower(), local.lower(), people)
            for part in re.split(r"([._+-])", local)
        ]
        labels = domain.lower().split(".")
        named = [label for label in labels[:-1] if label not in PUBLIC_LABELS] or labels[:1]
        host = ".".join("-".join(self._host_word(word) for word in label.split("-")) for label in named)
        base = "".join(parts)
        issued = self._issue(MAIL, normal(MAIL, value), value, lambda n: f"{base}{n + 1 if n else ''}@{host}.example")
        return issued.upper() if value.isupper() else issued

    def address(self, value: str) -> str:
        """A street address in the same country; on two lines if the true one has several."""
        locale, key, plain = address_locale(value, self._home), normal("ADDRESS", value), " ".join(value.split())
        has_town = any(character.isdigit() for character in value[-9:])
        issued = self._issue("ADDRESS", key, plain, lambda n: self._address(locale, "ADDRESS" + key, n, has_town))
        issued = issued.upper() if value.isupper() else issued
        return issued.replace(", ", "\n", 1) if "\n" in value else issued

    def other(self, entity_type: str, value: str) -> str:
        """A value of any other type, written in the form of the true one."""
        key, plain = normal(entity_type, value), " ".join(value.split())
        if entity_type == PHONE and self._is_suppressed(PHONE, key):
            return f"[{PHONE}]"
        draw = DRAWS.get(entity_type)

        def propose(attempt: int) -> str:
            chance = self._chance(entity_type, key, attempt)
            return normal(entity_type, draw(chance, key, attempt) if draw else code(chance, plain, attempt))

        return write_like(entity_type, self._issue(entity_type, key, plain, propose), value, self._language)

    def _issue(self, entity_type: str, key: str, value: str, propose: Callable[[int], str]) -> str:
        candidates = (
            candidate
            for candidate in map(propose, range(MAX_CANDIDATES))
            if not self._content.contains(entity_type, candidate) and not repeats(entity_type, candidate, key)
        )

        def next_candidate(_: int) -> str:
            candidate = next(candidates, None)
            if candidate is None:
                raise ResourceExhausted(
                    Reason.NO_SURROGATE_LEFT, f"No unused surrogate of type {entity_type} was found."
                )
            return candidate

        surrogate = self._issuer.issue(entity_type, key, value, next_candidate)
        self.issued.add((entity_type, surrogate))
        return surrogate

    def _record_full_name(self, first: str, last: str, title: str) -> None:
        given, family = (word.capitalize() if word.isupper() else word for word in (first, last))
        self.issued.add((PERSON, f"{self._given(given, title)} {self._family(family)}"))

    def _is_suppressed_person(self, names: list[Token], value: str, people: People) -> bool:
        if len(names) > 1:
            return self._is_suppressed(PERSON, f"{fold(names[0].bare)} {fold(names[-1].bare)}")
        words = {fold(token.bare) for token in tokenise(value)}
        return any(given in words or family in words for given, family in self._suppressed_people(people))

    def _is_suppressed_mail(self, value: str, people: People) -> bool:
        """True if the address is suppressed or contains a suppressed person's names."""
        parts = re.split(r"[._+-]", fold(value.rpartition("@")[0]))
        return (
            any(self._is_suppressed(PERSON, f"{first} {second}") for first, second in pairwise(parts))
            or any(
                f"{given[0]}{family}" in parts or {given[0], family} <= set(parts)
                for given, family in self._suppressed_people(people)
            )
            or self._is_suppressed(MAIL, normal(MAIL, value))
        )

    def _suppressed_people(self, people: People) -> list[tuple[str, str]]:
        """Folded given names and surnames of the document's suppressed people."""
        bearers = ((fold(given), family) for (_, family), given in people.bearers.items())
        return [name for name in bearers if self._is_suppressed(PERSON, " ".join(name))]

    def _names(self, value: str) -> list[Token]:
        return [token for token in tokenise(value) if self._is_name(token)]

    def _is_name(self, token: Token) -> bool:
        return token.is_capitalised and not token.is_initial and not self._lexicon.has_title(token.bare)

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
        gender = known.gender if known else ""
        # Most names that the British list has are in use everywhere.
        is_foreign = known and known.locale != "en_GB" and not self._lexicon.uses(self._home, word)
        locale = known.locale if known and is_foreign else self._home
        if self._lexicon.has("titles_male", title):
            gender = "m"
        elif self._lexicon.has("titles_female", title):
            gender = "f"
        pool = self._lexicon.given_names(locale, gender)
        wide = [name for other in (locale, *WIDE_GIVEN_LOCALES) for name in self._lexicon.given_names(other, gender)]
        return self._issue_word(GIVEN, word, pool, wide)

    def _family(self, word: str) -> str:
        is_foreign = self._lexicon.is_surname(word) and not self._lexicon.uses(self._home, word)
        pool = self._lexicon.family_names(self._lexicon.surname_locale(word) if is_foreign else self._home)
        return self._issue_word(FAMILY, word, pool, self._wide_families())

    def _own_word(self, word: str) -> str:
        return self._issue_word(WORD, word, self._lexicon.family_names(self._home), self._wide_families())

    def _wide_families(self) -> list[str]:
        locales = dict.fromkeys((self._home, *WIDE_FAMILY_LOCALES))
        return [name for locale in locales for name in self._lexicon.family_names(locale)]

    @property
    def _home(self) -> str:
        return HOMES.get(self._language, "en_GB")

    def _issue_word(self, kind: str, word: str, pool: tuple[str, ...], wide: list[str]) -> str:
        key = fold(word)

        def propose(attempt: int) -> str:
            chance = self._chance(kind, key, attempt)
            names = pool if attempt < LOCAL_POOL_ATTEMPTS else wide
            if attempt < SINGLE_ATTEMPTS and "-" not in word:
                return chance.choice(names)
            return f"{chance.choice(names)}-{chance.choice(names)}"

        issued = self._issue(kind, key, word, propose)
        if word.islower():
            return issued.lower()
        return issued.upper() if word.isupper() and len(word) > 1 else issued

    def _mail_word(self, part: str, local: str, people: People) -> str:
        if self._lexicon.has("mail_roles", part) or part.isdigit():
            return part
        if len(part) == 1:
            family = next((people.words[word] for word in re.split(r"[._+-]", local) if word in people.words), "")
            return ascii_word(self._initial(part, family, people))
        word = people.words.get(part)
        if word is None and part[1:] in people.words:
            family = people.words[part[1:]]
            return ascii_word(self._initial(part[0], family, people)) + ascii_word(self._family(family))
        is_given = fold(word or part) in people.given or (word is None and self._lexicon.given(part) is not None)
        name = word or part.capitalize()
        return ascii_word(self._given(name, "") if is_given else self._family(name))

    def _host_word(self, word: str) -> str:
        is_kept = not word or word.isdigit() or self._is_kind(word) or self._lexicon.has("mail_roles", word)
        return word if is_kept else ascii_word(self._own_word(word.capitalize()))

    def _is_kind(self, word: str) -> bool:
        lists = ("kinds_last", "kinds_first", "connectors", "legal_forms", "never")
        return self._lexicon.has_any(lists, word) or word in ("o.o", "z")

    def _rebuild(self, value: str, tokens: Sequence[Token], change: Callable[[Token], str]) -> str:
        parts, end = [], 0
        for token in tokens:
            parts += [value[end : token.start], change(token)]
            end = token.bare_end
        return "".join(parts) + value[end:]

    def _address(self, locale: str, key: str, attempt: int, has_town: bool) -> str:
        with self._lock:
            if locale not in self._fakers:
                self._fakers[locale] = Faker(locale)
            faker = self._fakers[locale]
            faker.seed_instance(self._chance("ADDRESS", key, attempt).getrandbits(64))
            street = " ".join(faker.street_address().split())
            is_code_last = locale in ("en_GB", "en_IE")
            town = f"{faker.city()} {faker.postcode()}" if is_code_last else f"{faker.postcode()} {faker.city()}"
            if locale == "en_US":
                town = f"{faker.city()}, {faker.state_abbr()} {faker.postcode()}"
        return f"{street}, {town}" if has_town or locale not in ("en_GB", "en_IE", "en_US") else street

    def _chance(self, kind: str, key: str, attempt: int) -> random.Random:
        seed = hmac.digest(self._key, f"{kind}\x1f{key}\x1f{attempt}".encode(), hashlib.sha256)
        return random.Random(seed)  # noqa: S311 - the seed is keyed; the draw need not be cryptographic


# What only one country's addresses have, in the order in which it is looked for.
ADDRESS_FORMS = (
    ("en_US", r"\b[A-Z]{2} \d{5}\b"),
    ("en_IE", r"\b[A-Z]\d[\dW] [A-Z\d]{4}\b"),
    ("en_GB", r"[A-Z]\d[A-Z\d]? \d[A-Z]{2}\b"),
    ("nl_NL", r"\b\d{4} ?[A-Z]{2}\b"),
    ("pt_PT", r"\b\d{4}-\d{3}\b"),
    ("pl_PL", r"\b\d{2}-\d{3}\b|\b(?:ul|al|os)\. "),
    ("fr_FR", r"(?i)\b(?:rue|quai|chemin|boulevard|impasse|allée)\b(?s:.)*\b\d{5}\b"),
    ("it_IT", r"(?i)\b(?:via|viale|piazza|corso|vicolo)\b(?s:.)*\b\d{5}\b"),
    ("es_ES", r"(?i)\b(?:calle|avenida|plaza|paseo|c/)(?s:.)*\b\d{5}\b"),
    ("de_DE", r"(?i)(?:straße|strasse|str\.|weg|platz|gasse|allee) \d"),
)
FRENCH_STREET = re.compile(r"\b(?:avenue|place|route)\b")
CODE_BEFORE_TOWN = re.compile(r"\b\d{4,5} [^\W\d]")


def address_locale(value: str, home: str = "en_GB") -> str:
    """The locale whose form a street address has; if the form does not tell, that of the text's language."""
    for locale, form in ADDRESS_FORMS:
        if re.search(form, value):
            return locale
    if home != "en_GB":
        return home
    if not CODE_BEFORE_TOWN.search(value):
        return home
    return "fr_FR" if FRENCH_STREET.search(value) else "de_DE"


def ascii_word(word: str) -> str:
    """A name as mail addresses write it."""
    return "".join(letter for letter in fold(word) if letter.isascii() and (letter.isalnum() or letter == "-"))
