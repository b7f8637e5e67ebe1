"""Whether a text has prose: what remains without headings, captions, code, navigation and tables of contents."""

import re
from collections.abc import Iterator

from services.synthetic.rows.structure import BOLD_LINE, HEADING, count_words

# The shortest sentences that teach anything have about as many words: "The control failed in March."
MIN_SENTENCE_WORDS = 5
# Some languages and writers do without full stops. A heading or a fragment has fewer words than this.
MIN_PARAGRAPH_WORDS = 20
MIN_TABLE_ROWS = 2
# Where a table of a PDF file lost its columns, most lines have a few words, and a column of descriptions is one line that never ends. A
# list of terms has as many lines that explain them, and a signature no such line.
MIN_FRAGMENTS, FRAGMENT_WORDS, ENDLESS_WORDS = 6, 4, 40
# A shorter line with signs may be a formula or a name.
MIN_CODE_PARTS = 8
MAX_REFERENCE_WORDS = 18

# A word with quotation marks, brackets and punctuation around it, several that are joined, an abbreviation (a name of a file has longer
# parts between its dots), or a word of a language without blanks.
_PLAIN = re.compile(
    r"[\"“„‘«'(\[*`]{0,3}(?:(?:[^\W_]{1,2}\.)+[^\W_]{1,2}|[^\W_]+(?:[-/’'][^\W_]+)*)[.,;:!?…)\]\"”’“»'*`]{0,3}"
    r"|.*[\u3040-\u30ff\u3400-\u9fff].*|[-–—•*&]"
)
# A bracket that a full stop closes: the text was cut at an abbreviation.
_CUT = re.compile(r"\([^()]{0,12}\.$")
_FIGURE = re.compile(r"[^\w\s]{0,2}\d[\d.,:/%-]*[^\w\s]{0,2}")
_REFERENCE = re.compile(
    r"\W*(?:(?:Tip|Note|Hinweis|Tipp|Anmerkung)\W+)?(?:(?:also|please|bitte)\s+)?(?:see|siehe|vgl|cf|voir|véase|vedi|zie)\b",
    re.IGNORECASE,
)
_BRACKETED_REFERENCE = re.compile(r"\((?:see|siehe|vgl|cf|voir|véase|vedi|zie)\b[^()]*\)", re.IGNORECASE)
_FENCE = re.compile(r"\s*(?:```|~~~)")
_LINK = re.compile(r"!?\[([^\]\n]*)\]\([^)\n]*\)")
_ADDRESS = re.compile(r"\b(?:https?|ftp|mailto):\S+")
# The head of a mail.
_MAIL_FIELD = re.compile(
    r"\**(?:From|To|Cc|Bcc|Date|Sent|Subject|Reply-To|Message-ID|Von|An|Gesendet|Datum|Betreff|De|À|Para|Objet|Asunto)\**:",
    re.IGNORECASE,
)
# The dots between a title and its page in a table of contents.
_LEADER = re.compile(r"(?:\.[ \t\u00a0]?){4,}|…{2,}|(?:[·_][ \t]?){4,}")
_COMMAND = re.compile(r"\s*(?:\$|[\w.-]+@[\w.-]+[:~#$])\s+\S")
_ITEM = re.compile(r"[-*+•] ")
# An item that says what a cell of a table holds: `- Revenue: 1,200`.
_FIGURE_ITEM = re.compile(r"[-*+•] [^:]{2,}: \W?\d")
# Chinese and Japanese have no blanks: two characters count as a word.
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]{2}|[^\W\d_]{2,}")
# A full stop within a number or a name, or one that is quoted, ends nothing.
_END = re.compile(r"(?!(?<=[‘“\"'`])[.!?]+[’”\"'`])[.!?]+(?=[\s\"”’»)\]*_`]|$)|[。！？]")


def has_prose(text: str) -> bool:
    """True if a text has a sentence, a long paragraph, or two rows of a table with words or figures in two cells.

    Not if most of its lines are fragments, as where a table lost its columns.
    """
    lines = list(_plain_lines(text))
    if _is_broken_table(lines):
        return False
    rows = sum(_is_row(line) for line in lines)
    return rows >= MIN_TABLE_ROWS or any(map(_is_prose, _paragraphs(lines)))


def _is_broken_table(lines: list[str]) -> bool:
    """True if most of the lines that are neither items nor rows have a few words and end no sentence, and one line hardly ends."""
    running = [line for line in lines if line and not line.startswith("|") and not _ITEM.match(line)]
    fragments = sum(_count(line) <= FRAGMENT_WORDS and not _END.search(line[-2:]) for line in running)
    if fragments < MIN_FRAGMENTS or 2 * fragments <= len(running):
        return False
    return any(_count(part) >= ENDLESS_WORDS for line in running for part in _END.split(line))


def _plain_lines(text: str) -> Iterator[str]:
    """The lines without headings, code and navigation, which are empty instead, and without addresses."""
    is_code = False
    for line in text.split("\n"):
        is_fence = _FENCE.match(line) is not None
        is_code ^= is_fence
        yield (
            "" if is_code or is_fence or _is_around(line.strip()) else _ADDRESS.sub(" ", _LINK.sub(r"\1", line.strip()))
        )


def _is_around(line: str) -> bool:
    """True for a heading, a caption, a line of a table of contents, a command, a field of a mail's head, or mostly links."""
    if any(pattern.match(line) for pattern in (HEADING, BOLD_LINE, _COMMAND, _MAIL_FIELD)) or _LEADER.search(line):
        return True
    if line.startswith("|"):
        cells = [cell for cell in line.strip("|").split("|") if cell.strip()]
        return 2 * sum(_LINK.fullmatch(cell.strip()) is not None for cell in cells) > len(cells)
    linked = sum(len(_WORD.findall(match[1])) for match in _LINK.finditer(line))
    return linked > len(_WORD.findall(_ADDRESS.sub(" ", _LINK.sub(" ", line))))


def _is_row(line: str) -> bool:
    cells = sum(any(map(str.isalnum, cell)) for cell in line.split("|")) if line.startswith("|") else 0
    return cells >= 2 or _FIGURE_ITEM.match(line) is not None


def _paragraphs(lines: list[str]) -> Iterator[str]:
    """Neighbouring lines together; an item begins another paragraph, and rows of tables belong to none."""
    paragraph = ""
    for line in [*lines, ""]:
        if not line or line.startswith("|") or _ITEM.match(line):
            yield paragraph
            paragraph = "" if line.startswith("|") else line
        else:
            paragraph = f"{paragraph} {line}"


def _is_prose(paragraph: str) -> bool:
    """True for a whole sentence, or a long paragraph that does not only introduce what follows it. Not for code, references, cut text."""
    paragraph = _BRACKETED_REFERENCE.sub("", paragraph)
    if _is_code(paragraph) or _CUT.search(paragraph):
        return False
    *sentences, _ = _END.split(paragraph)
    return any(_count(sentence) >= MIN_SENTENCE_WORDS and not _is_reference(sentence) for sentence in sentences) or (
        _count(paragraph) >= MIN_PARAGRAPH_WORDS and not paragraph.endswith(":")
    )


def _is_code(paragraph: str) -> bool:
    """True if most parts between blanks are neither words nor figures, but signs, options, paths and assignments."""
    parts = [part for part in paragraph.split() if not _FIGURE.fullmatch(part)]
    return len(parts) >= MIN_CODE_PARTS and 2 * sum(_PLAIN.fullmatch(part) is not None for part in parts) < len(parts)


def _is_reference(sentence: str) -> bool:
    """True for a short sentence that only sends the reader elsewhere: `See Section 4.2 [Builtins], page 55`."""
    return _REFERENCE.match(sentence) is not None and _count(sentence) <= MAX_REFERENCE_WORDS


def _count(text: str) -> int:
    return sum(map(count_words, _WORD.findall(text)))
