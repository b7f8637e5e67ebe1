"""Splitting a paragraph into words, and telling which of them are written like names."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

WORD = re.compile(r"\w+(?:[.'’-]\w+)*", re.UNICODE)
# A line that breaks within a sentence is at least this long.
SHORTEST_WRAPPED_LINE = 45
LABEL = re.compile(r"[^\n:.,]{1,30}:(?:\s|$)")


@dataclass(frozen=True)
class Token:
    """One word at [start, end) of a paragraph; `gap` is what stands between it and the word before."""

    start: int
    end: int
    text: str
    gap: str

    @property
    def is_capitalised(self) -> bool:
        """True where it begins with a capital letter."""
        return self.text[0].isupper()

    @cached_property
    def bare(self) -> str:
        """The word without a possessive ending."""
        return self.text.replace("’", "'").removesuffix("'s")

    @property
    def bare_end(self) -> int:
        """Where the bare word ends."""
        return self.start + len(self.bare)

    @property
    def is_initial(self) -> bool:
        """True for one capital letter, or two joined ones such as J-P."""
        return (self.text.isupper() and len(self.text) == 1) or re.fullmatch(r"[A-Z]\.?-[A-Z]", self.text) is not None


@lru_cache(maxsize=4)
def tokenise(text: str) -> tuple[Token, ...]:
    """The words of a paragraph in order. A line break counts twice where what follows is not the line's rest."""
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
    """True where two words stand side by side; a PDF may break the line between them, wide space parts columns."""
    columns = "\n" not in gap and ("\t" in gap or "   " in gap)
    return gap != "" and gap.strip() == "" and gap.count("\n") <= 1 and not columns


def is_heading(text: str) -> bool:
    """True for a Markdown heading."""
    return text.lstrip().startswith("#")


def starts_sentence(tokens: Sequence[Token], index: int) -> bool:
    """True where a capital letter says nothing: at the beginning of a sentence, line or cell."""
    gap = tokens[index].gap
    return index == 0 or any(mark in gap for mark in '.!?:;|\n*#>-–—"“(') or (gap.strip() == "" and "\n" in gap)
