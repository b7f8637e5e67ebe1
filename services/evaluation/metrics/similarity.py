"""Whether two short statements say the same: their figures and dates must agree exactly, their words softly."""

import re
from functools import lru_cache

from nltk.stem.snowball import SnowballStemmer

from services.evaluation.metrics.figures import Values, find_values
from services.evaluation.metrics.names import find_names, words_of

LANGUAGES = {
    "ar": "arabic", "da": "danish", "nl": "dutch", "en": "english", "fi": "finnish", "fr": "french", "de": "german", "hu": "hungarian",
    "it": "italian", "no": "norwegian", "nb": "norwegian", "pt": "portuguese", "ro": "romanian", "ru": "russian", "es": "spanish",
    "sv": "swedish",
}  # fmt: skip
WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\W\d_]+")
# Shorter words are mostly articles and prepositions.
MIN_LETTERS = 4


def stems_of(text: str, language: str = "") -> frozenset[str]:
    """The stems of the words that carry the meaning."""
    words = WORD.findall(text.casefold())
    telling = [word for word in words if len(word) >= MIN_LETTERS or not word.isascii()] or words
    return frozenset(_stem(word, language) for word in telling)


def similarity(first: str, second: str, language: str = "") -> float:
    """The Dice coefficient of the statements' stems, 0 to 1 (Dice 1945)."""
    ours, theirs = stems_of(first, language), stems_of(second, language)
    total = len(ours) + len(theirs)
    return 2 * len(ours & theirs) / total if total else 0.0


def values_agree(first: str, second: str, language: str = "") -> bool:
    """True if the statements have the same figures and dates, also if they have none."""
    return values_of(first, language).agrees_with(values_of(second, language))


@lru_cache(maxsize=4096)
def values_of(text: str, language: str = "") -> Values:
    return find_values(text, language)


def names_agree(first: str, second: str, language: str = "") -> bool:
    """True if all names of one statement are words of the other, such as `Weber` and `Ms Anna Weber`.

    Without names inside them, the first words count as names.
    """
    ours, theirs = _name_words(first, language), _name_words(second, language)
    if ours or theirs:
        return any(names and names <= words_of(text) for names, text in ((ours, second), (theirs, first)))
    return _first_word(first) <= words_of(second) or _first_word(second) <= words_of(first)


def _name_words(text: str, language: str) -> frozenset[str]:
    """The words of names; a single word at the beginning does not count."""
    # A word in front keeps a name at the beginning whole; colons would begin a sentence.
    names = find_names(f"by {text.replace(':', ',')}", "" if language == "de" else language)
    first = _first_word(text)
    return frozenset(word for name in names if len(name) > 1 or not set(name) <= first for word in name)


def _first_word(text: str) -> frozenset[str]:
    words = WORD.findall(text.casefold())
    return frozenset(words[:1])


@lru_cache(maxsize=1 << 15)
def _stem(word: str, language: str) -> str:
    return str(_stemmer(LANGUAGES.get(language or "en", "english")).stem(word))


@lru_cache(maxsize=len(LANGUAGES))
def _stemmer(language: str) -> SnowballStemmer:
    return SnowballStemmer(language)
