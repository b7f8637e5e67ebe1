"""Splitting a paragraph into words, and telling which of them are written like names."""

import re
from dataclasses import dataclass

WORD = re.compile(r"\w+(?:[.'’-]\w+)*", re.UNICODE)


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

    @property
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


def tokenise(text: str) -> list[Token]:
    """The words of a paragraph in order."""
    tokens: list[Token] = []
    end = 0
    for match in WORD.finditer(text):
        tokens.append(Token(match.start(), match.end(), match[0], text[end : match.start()]))
        end = match.end()
    return tokens


def is_space(gap: str) -> bool:
    """True where two words stand side by side; a PDF may break the line between them."""
    return gap != "" and gap.strip() == "" and gap.count("\n") <= 1


def is_heading(text: str) -> bool:
    """True for a Markdown heading."""
    return text.lstrip().startswith("#")


def starts_sentence(tokens: list[Token], index: int) -> bool:
    """True where a capital letter says nothing: at the beginning of a sentence, line or cell."""
    gap = tokens[index].gap
    return index == 0 or any(mark in gap for mark in '.!?:;|\n*#>-–—"“(') or (gap.strip() == "" and "\n" in gap)
