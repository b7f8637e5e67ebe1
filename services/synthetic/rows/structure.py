"""Marks that show a text's structure in its lines, and counts of its words."""

import re

from services.synthetic.rows.lexicon import ARTICLES, SMALL_WORDS

# A longer line is a paragraph; with many spaces in it, the time to match would grow by their square.
HEADING = re.compile(r"^(?=.{1,1000}$)(#{1,6})\s+(.+?)\s*#*$")
BOLD_LINE = re.compile(r"^\*\*([^*]{2,80})\*\*:?$")
HEADER = re.compile(r"^\**([A-Z][A-Za-z-]{1,15})\**:\**\s+(\S.*)$")


def normalize(text: str) -> str:
    """The text with single spaces."""
    return " ".join(text.split())


def count_words(text: str) -> int:
    """The number of words; in a text without blanks, two characters count as a word."""
    count = len(text.split())
    return len(text) // 2 if not text.isascii() and len(text) > 20 * count else count


def has_words(text: str) -> bool:
    """True if letters are more than a tenth of what is not blank."""
    letters = sum(map(str.isalpha, text))
    return letters > 2 and letters * 10 > len("".join(text.split()))


def is_fragment(text: str) -> bool:
    """True if the last line ends in an open bracket or, without punctuation, in a function word."""
    line = text.rstrip().rpartition("\n")[2]
    is_cut = any(line.rfind(opening) > line.rfind(closing) for opening, closing in ("()", "[]"))
    return is_cut or line.rpartition(" ")[2].lower() in SMALL_WORDS | ARTICLES
