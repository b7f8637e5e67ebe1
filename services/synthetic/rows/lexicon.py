"""Small words of several languages, from `lexicon.toml`."""

import tomllib
from pathlib import Path

_CONTENT = tomllib.loads(Path(__file__).with_name("lexicon.toml").read_text(encoding="utf-8"))


def _words(name: str) -> frozenset[str]:
    return frozenset(_CONTENT[name].split())


_ABBREVIATIONS = {name: frozenset(words.split()) for name, words in _CONTENT["abbreviations"].items()}
BEFORE_FIGURES = _ABBREVIATIONS.pop("before_figures")
_ALL_ABBREVIATIONS = frozenset().union(*_ABBREVIATIONS.values())
NAME_LINKS = _words("name_links")
FEW_LINKS = _words("few_links")
DATE_LINKS = _words("date_links")
MONTHS = _words("months")
ARTICLES = _words("articles")
SMALL_WORDS = _words("small_words")


def abbreviations(language: str) -> frozenset[str]:
    """The abbreviations of a language (`de`), without their last full stop; of all languages if it has none here."""
    own = _ABBREVIATIONS.get(language)
    return _ALL_ABBREVIATIONS if own is None else own | _ABBREVIATIONS["common"]
