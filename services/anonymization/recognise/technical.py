"""Telling technical text (manuals, logs, code, commands) from prose, because its capitalised words name programs and not people."""

import re
from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise

# What prose does not have: options, paths, variables, identifiers, calls, assignments, versions, prompts of a shell.
MARKS = re.compile(
    r"(?<!\S)--?[a-zA-Z][\w-]*"
    r"|(?<!\w)[~.]{0,2}/(?:[\w.+-]+/)+[\w.+-]*"
    r"|\$\{?\w+|<[a-z][\w-]*>|\b\w+\(\d?\w?\)"
    r"|\b[a-z]+[A-Z]\w*\b|\b\w+_\w+\b|\b[A-Z][a-z]+[A-Z]\w*\b"
    r"|\b\w+\.(?:c|h|cc|py|js|ts|go|rs|java|sh|conf|cfg|toml|ya?ml|json|xml|so|dll|exe|log|txt|gz|service)\b"
    r"|`[^`\n]+`|^```|==|!=|&&|\|\||=>|->|::|\bv?\d+\.\d+\.\d+\b|\b0x[0-9a-f]+\b|\bCVE-\d{4}-\d+\b",
    re.MULTILINE,
)
WORD = re.compile(r"[^\W\d_]{2,}")
SECTION = re.compile(
    r"(?m)^(?:NAME|SYNOPSIS|DESCRIPTION|OPTIONS|SEE ALSO|EXIT STATUS|ENVIRONMENT|FILES|NOTES|EXAMPLES?|BUGS|DIAGNOSTICS|COMMANDS)[ \t]*$"
)
# A manual has about one mark in ten words, a letter one in a hundred.
FULL_DENSITY = 0.08
MOST_CHARS = 200_000


def technicality(text: str) -> float:
    """How technical a text is, from 0 (prose) to 1 (a manual, a log, a programme)."""
    sample = text[:MOST_CHARS]
    words = len(WORD.findall(sample))
    if words == 0:
        return 0.0
    if len(SECTION.findall(sample)) >= 3:
        return 1.0
    return min(1.0, len(MARKS.findall(sample)) / words / FULL_DENSITY)


class Technicality:
    """How technical each of several joined texts is."""

    def __init__(self, text: str, ends: Sequence[int]) -> None:
        """`ends` are the ends of the texts in `text`; without any, it is one."""
        self._ends = [end for end in ends if end < len(text)]
        self._values = [technicality(text[start:end]) for start, end in pairwise((0, *self._ends, len(text)))]

    def at(self, place: int) -> float:
        """The technicality of the text that contains a place, from 0 to 1."""
        return self._values[bisect_right(self._ends, place)]
