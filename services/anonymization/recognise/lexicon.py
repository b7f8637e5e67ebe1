"""The words that recognisers know: our own lists, Faker's names, and a dictionary of the language."""

import importlib
import pkgutil
import tomllib
import unicodedata
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

import faker.providers.person

from services.anonymization.recognise.languages.definition import load_language

WORDS_FILE = Path(__file__).with_name("words.toml")
UNDECOMPOSED = str.maketrans({"ł": "l", "ø": "o", "ı": "i", "đ": "d", "æ": "ae", "œ": "oe"})
# Inflections as `ending:stem`, where `stem` replaces the ending in the dictionary form.
ENDINGS = "s: es: ies:y ed: d: ied:y ing: ing:e er: er:e ers: ers:e ly: ness: able: n:"
# Given names of these locales count as names even if the dictionary has a word of the same spelling.
COMMON_LOCALES = ("en_GB", "en_US", "en_IE", "de_DE", "fr_FR", "es_ES", "it_IT", "nl_NL", "pl_PL", "pt_PT", "pt_BR")
# Countries with one language share a pool of names: the larger the pool, the less often a drawn name is that of a later person.
NEIGHBOURS = (("en_GB", "en_IE", "en_US"), ("de_DE", "de_AT"), ("fr_FR", "fr_BE", "fr_QC"))
# Letters that join the parts of a German compound, and the shortest part.
LINKS = ("", "s", "n", "en", "es", "er", "e")
SHORTEST_PART = 4
TITLES = ("titles", "titles_male", "titles_female")
INFLECTIONS = tuple(pair.split(":") for pair in ENDINGS.split())


@dataclass(frozen=True)
class Given:
    """The gender of a given name (`f`, `m` or empty) and a locale that uses it."""

    gender: str
    locale: str


@dataclass(frozen=True)
class Names:
    """Faker's names: folded given names and surnames, and pools of both by locale. All languages share them."""

    given: dict[str, Given]
    common: set[str]
    surnames: dict[str, str]
    given_pools: dict[tuple[str, str], tuple[str, ...]]
    family_pools: dict[str, tuple[str, ...]]
    # Folded given names and surnames that a locale uses, whether or not they may be drawn.
    by_locale: dict[str, set[str]]


@lru_cache(maxsize=50_000)
def fold(word: str) -> str:
    """The form that all spellings of a name share: no case, no accents, no possessive."""
    plain = word.replace("’", "'").removesuffix("'s").casefold().translate(UNDECOMPOSED)
    return "".join(letter for letter in unicodedata.normalize("NFKD", plain) if not unicodedata.combining(letter))


class Lexicon:
    """The words of one language. Loading takes a second."""

    def __init__(
        self, words: Mapping[str, Iterable[str]], names: Names, dictionary: Container[str], language: str = "en"
    ) -> None:
        self.lists = {name: frozenset(fold(item) for item in items) for name, items in words.items()}
        self.legal_forms = frozenset(words["legal_forms"])
        self.language = language
        self._names = names
        self._dictionary = dictionary

    @classmethod
    def load(cls, dictionary: Container[str], language: str = "en") -> "Lexicon":
        """Read the lists. `dictionary` contains the language's words in lower case."""
        words = tomllib.loads(WORDS_FILE.read_text(encoding="utf-8"))
        tables = {name: words.pop(name) for name in [name for name, value in words.items() if isinstance(value, dict)]}
        for name, items in tables.get(language, {}).items():
            words[name] = [*words[name], *items]
        language_words = load_language(language)
        for name, listed in language_words.words.items() if language_words else ():
            words[name] = [*words[name], *listed]
        names = _names(tuple(words["latin_locales"]), frozenset(words["ambiguous"]))
        for name in words["given_more"]:
            names.given.setdefault(fold(name), Given("", "en_GB"))
            names.common.add(fold(name))
        return cls(words, names, dictionary, language)

    @property
    def capitalises_nouns(self) -> bool:
        """True for German, where a capital letter does not suggest a name."""
        return self.language == "de"

    def is_common_given(self, word: str) -> bool:
        """True for a well-known given name whose first meaning is a name."""
        plain = fold(word)
        first = plain.split("-", maxsplit=1)[0]
        is_common = plain in self._names.common or first in self._names.common
        return is_common and not self.has_any(("ambiguous", "not_alone", "never", "departments", "places"), word)

    def given(self, word: str) -> Given | None:
        """Gender and locale of a given name, or None if the word is not one."""
        known = self._names.given
        return known.get(fold(word)) or (known.get(fold(word.split("-", maxsplit=1)[0])) if "-" in word else None)

    def is_surname(self, word: str) -> bool:
        """True for a surname of any locale, and for a double name of such surnames."""
        plain = fold(word)
        return plain in self._names.surnames or (
            "-" in plain and all(part in self._names.surnames for part in plain.split("-"))
        )

    def may_be_surname(self, word: str) -> bool:
        """True for a surname that may mean something else, too."""
        return self.is_surname(word)

    def given_names(self, locale: str, gender: str) -> tuple[str, ...]:
        """A locale's given names, of both genders if it does not tell which; British ones if it has none."""
        pools = self._names.given_pools
        pool = pools.get((locale, gender)) or (*pools.get((locale, "f"), ()), *pools.get((locale, "m"), ()))
        return pool or pools["en_GB", gender or "f"]

    def uses(self, locale: str, word: str) -> bool:
        """True if the word is a name in a locale."""
        return fold(word) in self._names.by_locale.get(locale, ())

    def surname_locale(self, word: str) -> str:
        """A locale that uses the surname; British if none is known."""
        return self._names.surnames.get(fold(word), "en_GB")

    def family_names(self, locale: str) -> tuple[str, ...]:
        """A locale's surnames; British ones if it has none."""
        return self._names.family_pools.get(locale) or self._names.family_pools["en_GB"]

    def is_plain(self, word: str) -> bool:
        """True for a dictionary word in any inflection. The dictionary includes well-known places and people."""
        return all(self._is_listed(part.lower()) for part in word.replace("'", "-").split("-") if part)

    def _is_listed(self, word: str) -> bool:
        if word in self._dictionary:
            return True
        if self.capitalises_nouns:
            return any(
                word[:place].removesuffix(link) in self._dictionary and word[place:] in self._dictionary
                for place in range(SHORTEST_PART, len(word) - SHORTEST_PART + 1)
                for link in LINKS
                if word[:place].endswith(link)
            )
        # The lists of other languages have all forms of a word.
        return self.language == "en" and any(
            word.endswith(ending) and word.removesuffix(ending) + stem in self._dictionary
            for ending, stem in INFLECTIONS
        )

    def is_ambiguous(self, word: str) -> bool:
        """True for a name whose first meaning is an ordinary word."""
        return self.has("ambiguous", word)

    def has(self, name: str, word: str) -> bool:
        """True if the named list contains the word."""
        return fold(word) in self.lists[name]

    def has_any(self, names: Iterable[str], word: str) -> bool:
        """True if any of the named lists contains the word."""
        folded = fold(word)
        return any(folded in self.lists[name] for name in names)

    def has_title(self, word: str) -> bool:
        """True for Mr, Frau, Dr and the like, in any case."""
        return self.has_any(TITLES, word)

    def is_title(self, word: str) -> bool:
        """True for a title as it is written before a name: capitalised (except `mec`), with or without a full stop."""
        title = word.rstrip(".")
        return (title[:1].isupper() or title == "mec") and self.has_title(title)


@cache
def _names(latin: tuple[str, ...], avoided: frozenset[str]) -> Names:
    names = Names({}, set(), {}, {}, {}, {})
    available = [module.name for module in pkgutil.iter_modules(faker.providers.person.__path__)]
    first = [locale for locale in (*latin, *chain(*NEIGHBOURS)) if locale in available]
    ordered = dict.fromkeys([*first, *sorted(available)])
    for locale in ordered:
        provider = importlib.import_module(f"faker.providers.person.{locale}").Provider
        words = load_language(locale[:2])
        gendered = words.gendered_endings if words else ()
        country = words.locale if words else "en_GB"
        home = locale if locale in latin else next((group[0] for group in NEIGHBOURS if locale in group), country)
        for attribute, gender in (("first_names_female", "f"), ("first_names_male", "m"), ("first_names", "")):
            pool = _values(provider, attribute)
            names.by_locale.setdefault(locale, set()).update(map(fold, pool))
            names.given_pools[locale, gender] = tuple(name for name in pool if _is_usable(name, avoided))
            for name in pool:
                names.given.setdefault(fold(name), Given(gender, home))
            if locale in COMMON_LOCALES:
                names.common.update(map(fold, pool))
        families = [
            name
            for attribute in ("last_names", "last_names_male", "last_names_female")
            for name in _values(provider, attribute)
        ]
        # Polish names are split otherwise, and would be too many for other languages.
        own_families = [*families, *_values(provider, "unisex_last_names"), *_values(provider, "male_last_names")]
        names.by_locale[locale].update(map(fold, own_families))
        # A surname whose ending tells a gender does not fit everybody.
        neutral = (name for name in own_families if not name.endswith(gendered) and _is_usable(name, avoided))
        names.family_pools[locale] = tuple(dict.fromkeys(neutral))
        for name in families:
            names.surnames.setdefault(fold(name), home)
    for locales in NEIGHBOURS:
        _share(names, locales)
    return names


def _share(names: Names, locales: tuple[str, ...]) -> None:
    """Merge the pools of these locales. A given name goes to the gender that it is known for."""
    families = tuple(dict.fromkeys(name for locale in locales for name in names.family_pools[locale]))
    names.family_pools.update(dict.fromkeys(locales, families))
    for gender in ("f", "m", ""):
        pool = [name for locale in locales for name in names.given_pools[locale, gender]]
        given = tuple(name for name in dict.fromkeys(pool) if gender in ("", names.given[fold(name)].gender))
        names.given_pools.update(dict.fromkeys(((locale, gender) for locale in locales), given))


def _is_usable(name: str, avoided: frozenset[str]) -> bool:
    return name.isalpha() and len(name) > 2 and fold(name).isascii() and name.lower() not in avoided


def _values(provider: type[Any], attribute: str) -> list[str]:
    values = getattr(provider, attribute, ())
    return [] if isinstance(values, property) else [value for value in values if len(value) > 1]
