"""Whether two short statements say the same: their figures and dates must agree exactly, their words softly."""

import re
from functools import lru_cache

from nltk.stem.snowball import SnowballStemmer

from services.evaluation.metrics.figures import Values, find_values
from services.evaluation.metrics.names import find_names

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
    words = [word for word in WORD.findall(text.casefold())]
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
    """True if the names of one statement are all among those of the other, such as `Weber` and `Ms Anna Weber`."""
    ours, theirs = _name_words(first, language), _name_words(second, language)
    return ours <= theirs or theirs <= ours if ours and theirs else ours == theirs


def _name_words(text: str, language: str) -> frozenset[str]:
    # A word in front keeps a name at the beginning from being taken for a sentence's first word.
    names = find_names(f"- by {text}", "" if language == "de" else language)
    return frozenset(word for name in names for word in name)


@lru_cache(maxsize=1 << 15)
def _stem(word: str, language: str) -> str:
    return str(_stemmer(LANGUAGES.get(language or "en", "english")).stem(word))


@lru_cache(maxsize=len(LANGUAGES))
def _stemmer(language: str) -> SnowballStemmer:
    return SnowballStemmer(language)
