"""The dictionary of each language: which words are ordinary. Polish has one that knows every case of every word."""

from collections.abc import Container
from functools import cache, lru_cache
from typing import Any

import spellchecker

from services.anonymization.recognise.lexicon import Given

# Languages of the spelling checker, whose word lists have all forms of a word.
LISTED = ("de", "fr", "es", "it", "nl", "pt")
NAME, SURNAME = "imię", "nazwisko"
NAMES = (NAME, SURNAME, "nazwa_geograficzna")
UNKNOWN = "ign"


class PolishWords(Container[str]):
    """Words that Morfeusz knows as more than a name. Thread-safe as far as its analyser is."""

    def __contains__(self, word: object) -> bool:
        return isinstance(word, str) and any(tag != UNKNOWN and not names for tag, names in _readings(word))


def read_dictionary(language: str) -> Container[str]:
    """The words of a language in lower case; empty if there is no list of them. English has that of its model."""
    if language == "pl":
        return PolishWords()
    if language in LISTED:
        return frozenset(spellchecker.SpellChecker(language=language, distance=1).word_frequency.words())
    return frozenset()


def polish_given(word: str) -> Given | None:
    """The given name of which the word is a form, such as `Janowi`; None if it is not one."""
    for tag, names in _readings(word):
        if NAME in names:
            return Given("f" if ":f" in tag else "m", "pl_PL")
    return None


def is_polish_surname(word: str) -> bool:
    """True for any case of a surname that is not also an ordinary word or a place."""
    readings = _readings(word)
    return any(SURNAME in names for _, names in readings) and all(
        names and names != ("nazwa_geograficzna",) for _, names in readings
    )


def has_polish_surname(word: str) -> bool:
    """True for any case of a surname, also if it is an ordinary word: `Wróbel` is a sparrow."""
    return any(SURNAME in names for _, names in _readings(word))


def forget_words() -> None:
    """Remove what is remembered of the words that were looked up."""
    _readings.cache_clear()


@lru_cache(maxsize=50_000)
def _readings(word: str) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """The tags of a word's readings, and which kinds of name each is."""
    return tuple(
        (tag, tuple(name for name in names if name in NAMES))
        for _, _, (_, _, tag, names, _) in _morfeusz().analyse(word)
    )


@cache
def _morfeusz() -> Any:
    import morfeusz2

    return morfeusz2.Morfeusz(generate=False)
