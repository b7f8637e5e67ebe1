"""Small words of several languages, from `lexicon.toml`."""

import tomllib
from pathlib import Path

_CONTENT = tomllib.loads(Path(__file__).with_name("lexicon.toml").read_text(encoding="utf-8"))


def _words(name: str) -> frozenset[str]:
    return frozenset(_CONTENT[name].split())


ABBREVIATIONS = _words("abbreviations")
NAME_LINKS = _words("name_links")
FEW_LINKS = _words("few_links")
DATE_LINKS = _words("date_links")
MONTHS = _words("months")
ARTICLES = _words("articles")
SMALL_WORDS = _words("small_words")
