"""Splitting a paragraph into words, and how they are written."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

WORD = re.compile(r"\w+(?:[.'’-]\w+)*", re.UNICODE)
# No name and no part of an address is longer without a space.
LONG_RUN = re.compile(r"\S{61,}")
# A line that breaks within a sentence is at least this long.
SHORTEST_WRAPPED_LINE = 45
LABEL = re.compile(r"[^\n:.,]{1,30}:(?:\s|$)")


@dataclass(frozen=True)
class Token:
    """One word at [start, end) of a paragraph. `gap` is the text between the previous word and this one."""

    start: int
    end: int
    text: str
    gap: str

    @property
    def is_capitalised(self) -> bool:
        return self.text[0].isupper()

    @cached_property
    def bare(self) -> str:
        """The word without a possessive ending."""
        return self.text.replace("’", "'").removesuffix("'s")

    @property
    def bare_end(self) -> int:
        """The end of the word without its possessive ending."""
        return self.start + len(self.bare)

    @property
    def is_initial(self) -> bool:
        """True for a single capital letter, or two joined by a hyphen, such as J-P."""
        return (self.text.isupper() and len(self.text) == 1) or re.fullmatch(r"[A-Z]\.?-[A-Z]", self.text) is not None


def blank_long_runs(text: str) -> str:
    """The text with `_` for each character of a long run without spaces.

    For patterns of several capitalised words: hyphens and full stops separate words and occur in them, so such a pattern tries each way to
    cut a run, and their number grows with a high power of its length.
    """
    return LONG_RUN.sub(lambda run: "_" * len(run[0]), text)


def is_elided(token: Token) -> bool:
    """True for the `d'Or` of `Verrerie du Val d'Or`: a capitalised word behind an article."""
    return token.text[1:2] in ("'", "’") and token.text[2:3].isupper()


@lru_cache(maxsize=4)
def tokenise(text: str) -> tuple[Token, ...]:
    """The words of a paragraph in order. If a line break ends more than a wrapped line, `gap` doubles it."""
    tokens: list[Token] = []
    end = 0
    for match in WORD.finditer(text):
        gap = text[end : match.start()]
        if "\n" in gap and (
            end - (text.rfind("\n", 0, end) + 1) < SHORTEST_WRAPPED_LINE or LABEL.match(text, match.start())
        ):
            gap = gap.replace("\n", "\n\n")
        tokens.append(Token(match.start(), match.end(), match[0], gap))
        end = match.end()
    return tuple(tokens)


def is_space(gap: str) -> bool:
    """True if nothing but space separates two words. One line break may come from a PDF; wide space separates columns."""
    columns = "\n" not in gap and ("\t" in gap or "   " in gap)
    return gap != "" and gap.strip() == "" and gap.count("\n") <= 1 and not columns


def is_heading(text: str) -> bool:
    return text.lstrip().startswith("#")


def starts_sentence(tokens: Sequence[Token], index: int) -> bool:
    """True at the beginning of a sentence, line or cell, where a capital letter means nothing."""
    gap = tokens[index].gap
    return index == 0 or any(mark in gap for mark in '.!?:;|\n*#>-–—"“(') or (gap.strip() == "" and "\n" in gap)
