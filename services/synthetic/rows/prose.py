"""How much of a text is prose: what remains without headings, captions, code, navigation and tables of contents."""

import re

from services.synthetic.rows.structure import BOLD_LINE, HEADING, count_words

# The shortest sentences that teach anything have about as many words: "The control failed in March."
MIN_PROSE_WORDS = 5

_FENCE = re.compile(r"\s*(?:```|~~~)")
_LINK = re.compile(r"!?\[([^\]\n]*)\]\([^)\n]*\)")
_ADDRESS = re.compile(r"\b(?:https?|ftp|mailto):\S+")
# The dots between a title and its page in a table of contents.
_LEADER = re.compile(r"(?:\.[ \t\u00a0]?){4,}|…{2,}|(?:[·_][ \t]?){4,}")
_FIGURE = re.compile(r"(?<![\w.,])\d[\d.,:/-]*")
_ITEMS = ("- ", "* ", "+ ", "• ")
_COMMAND = re.compile(r"\s*(?:\$|[\w.-]+@[\w.-]+[:~#$])\s+\S")
# Chinese and Japanese have no blanks: two characters count as a word.
_LETTERS = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]{2}|[^\W\d_]{2,}")


def has_prose(text: str) -> bool:
    """True if a text has at least MIN_PROSE_WORDS words of prose; figures of a list, or of a table's row with two cells, count as words."""
    words, is_code = 0, False
    for line in text.split("\n"):
        if _FENCE.match(line):
            is_code = not is_code
        elif not is_code:
            words += _count_prose(line.strip())
        if words >= MIN_PROSE_WORDS:
            return True
    return False


def _count_prose(line: str) -> int:
    """The words of a line that is prose or a row of a table; 0 for others."""
    if not line or HEADING.match(line) or BOLD_LINE.match(line) or _LEADER.search(line) or _COMMAND.match(line):
        return 0
    is_row, is_item = line.startswith("|"), line.startswith(_ITEMS)
    if is_row and sum(any(map(str.isalnum, cell)) for cell in line.split("|")) < 2:
        return 0
    rest = _ADDRESS.sub(" ", _LINK.sub(" ", line))
    linked = " ".join(match[1] for match in _LINK.finditer(line))
    if len(_LETTERS.findall(rest)) < len(_LETTERS.findall(linked)):
        return 0
    plain = _ADDRESS.sub(" ", _LINK.sub(r"\1", line))
    figures = len(_FIGURE.findall(plain)) if is_row or is_item else 0
    return figures + sum(map(count_words, _LETTERS.findall(plain)))
