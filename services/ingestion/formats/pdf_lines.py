"""Lines of a PDF, and which of them are not its text: running headers and footers, page numbers, and lists of contents."""

import itertools
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

NUMBER = re.compile(r"\d+")
ROMAN = re.compile(r"[ivxl]{1,7}", re.IGNORECASE)
ROMAN_VALUES = {"i": 1, "v": 5, "x": 10, "l": 50}
PAGE_NUMBER = re.compile(r"\W{0,3}(?:\d{1,4}|[ivxl]{1,7})\W{0,3}", re.IGNORECASE)
# Lines less than this many points apart are one row; this many rows at the top and at the bottom of a page may be running lines, but at
# most a third of its rows each.
ROW_POINTS = 3.0
EDGE_ROWS = 2
MAX_RUNNING_CHARS = 150
# A line that stands on fewer pages is text: a letter of two pages may have its letterhead on both.
FEWEST_PAGES = 3
# An entry of a list of contents or of an index ends in the numbers of pages, often after dots.
ENTRY_PAGE = re.compile(r"(?<![\d,:/-])(?<!\d\.)(?:\d{1,4}|[ivxl]{1,7})$", re.IGNORECASE)
INDEX_PAGES = re.compile(r"(?<![\d,:/-])(?<!\d\.)\d{1,4}(?:, ?\d{1,4})*$")
LEADER = re.compile(r"(?:\s?[.·…_]){5,}|…{2,}")
LETTER = re.compile(r"[^\W\d_]")
FEWEST_ENTRIES = 4
FEWEST_INDEX_ROWS = 10
FEWEST_LETTERS = 2
PAGES_BEYOND = 20
CONTENTS = re.compile(
    r"(?:table of )?contents|(?:brief|short|detailed) contents|list of (?:figures|tables|examples)|inhalt(?:sverzeichnis|sübersicht)?"
    r"|(?:abbildungs|tabellen)verzeichnis|table des matières|sommaire|liste des (?:figures|tableaux)|(?:tabla de )?contenidos?"
    r"|índice(?: general)?|indice(?: generale)?|inhoud(?:sopgave)?|sumário",
    re.IGNORECASE,
)
# Of a file's characters, at least this share stays.
LEAST_SHARE = 0.2


@dataclass(frozen=True)
class PdfLine:
    """One line. `size` and `gap`, the space above it, are in points; the gap is negative at the start of a page or column.

    `opening` is the mark of a page that begins with this line. `left` and `top` are its place on the page in points.
    """

    text: str
    size: float
    gap: float
    opening: str = ""
    left: float = 0.0
    top: float = 0.0

    @property
    def chars(self) -> int:
        """The characters but blanks."""
        return sum(map(len, self.text.split()))


Page = Sequence[PdfLine]
# The place of a line: the number of its page from 0, and its own on the page.
Place = tuple[int, int]


def remove_repeated(pages: Sequence[Page]) -> tuple[list[list[PdfLine]], Counter[str]]:
    """The pages without running lines and lists of contents, and the removed characters by kind: `running_lines`, `contents`.

    Of a file that is little else, nothing is removed. The first line that is left on a page has the gap of a page's first line.
    """
    kinds = dict.fromkeys(_find_running(pages), "running_lines")
    kinds |= dict.fromkeys(_find_contents(pages, kinds), "contents")
    removed: Counter[str] = Counter()
    for (page, number), kind in kinds.items():
        removed[kind] += pages[page][number].chars
    everything = sum(line.chars for lines in pages for line in lines)
    if everything - removed.total() < LEAST_SHARE * everything:
        return [list(lines) for lines in pages], Counter()
    return [
        _reopen([line for number, line in enumerate(lines) if (page, number) not in kinds])
        for page, lines in enumerate(pages)
    ], +removed


def _reopen(lines: list[PdfLine]) -> list[PdfLine]:
    return [replace(lines[0], gap=-1.0), *lines[1:]] if lines else []


def _rows(lines: Page, skipped: Iterable[int] = ()) -> list[list[int]]:
    """The numbers of lines at the same height, from the top of the page to its bottom."""
    rows: list[list[int]] = []
    skipped = set(skipped)
    for number in sorted(range(len(lines)), key=lambda number: -lines[number].top):
        if number in skipped:
            continue
        if rows and lines[rows[-1][0]].top - lines[number].top < ROW_POINTS:
            rows[-1].append(number)
        else:
            rows.append([number])
    return [sorted(row, key=lambda number: lines[number].left) for row in rows]


def _find_running(pages: Sequence[Page]) -> Iterator[Place]:
    """Lines at one height at the top or bottom of pages that differ at most by the page number. The first page keeps its own.

    A number alone is one if it is as far from the number of its page as on other pages.
    """
    groups: dict[tuple[str, int], list[Place]] = defaultdict(list)
    for page, lines in enumerate(pages):
        rows = _rows(lines)
        edge = min(EDGE_ROWS, len(rows) // 3)
        for number in {number for row in (*rows[:edge], *rows[len(rows) - edge :]) for number in row}:
            if len(lines[number].text) <= MAX_RUNNING_CHARS:
                groups[_shape(lines[number].text), round(lines[number].top)].append((page, number))
    for (shape, _), places in groups.items():
        texts = [(page, pages[page][number].text) for page, number in places]
        if len({page for page, _ in places}) >= FEWEST_PAGES:
            is_number = shape == "#"
            followers = _with_page_number(texts)
            yield from (
                place
                for place, follows in zip(places, followers, strict=True)
                if follows and (place[0] > 0 or is_number)
            )


def _shape(text: str) -> str:
    """The text with `#` for each number; `#` if it is only the number of a page."""
    return "#" if PAGE_NUMBER.fullmatch(text) else NUMBER.sub("#", " ".join(text.casefold().split()))


def _with_page_number(texts: Sequence[tuple[int, str]]) -> list[bool]:
    """Whether each number in a line is the same as in most lines of its shape, or as far from the number of its page."""
    values = [_numbers(text) for _, text in texts]
    verdicts = [True] * len(texts)
    for position in range(min(map(len, values))):
        column = [row[position] for row in values]
        distances = [value - page for value, (page, _) in zip(column, texts, strict=True)]
        same, apart = Counter(column), Counter(distances)
        for index, (value, distance) in enumerate(zip(column, distances, strict=True)):
            is_alone = PAGE_NUMBER.fullmatch(texts[index][1]) is not None
            is_known = apart[distance] >= FEWEST_PAGES or (same[value] >= FEWEST_PAGES and not is_alone)
            verdicts[index] = verdicts[index] and is_known
    return verdicts


def _numbers(text: str) -> list[int]:
    if PAGE_NUMBER.fullmatch(text) and (roman := ROMAN.search(text)):
        return [_roman(roman[0])]
    return [int(number) for number in NUMBER.findall(text)]


def _roman(text: str) -> int:
    values = [ROMAN_VALUES[letter] for letter in text.lower()]
    return sum(-value if value < max(values[index:]) else value for index, value in enumerate(values))


def _find_contents(pages: Sequence[Page], running: Iterable[Place]) -> Iterator[Place]:
    """Rows of lists of contents with their headings, and of indexes."""
    skipped: dict[int, set[int]] = defaultdict(set)
    for page, number in running:
        skipped[page].add(number)
    goes_on = was_index = False
    for page, lines in enumerate(pages):
        rows = _rows(lines, skipped[page])
        texts = [" ".join(lines[number].text for number in row) for row in rows]
        block = _contents_rows(texts, len(pages), goes_on)
        goes_on = bool(block) and block[-1] >= len(rows) - 2
        was_index = not block and _is_index(lines, texts, len(pages), was_index)
        if was_index:
            block = [index for index, text in enumerate(texts) if LEADER.search(text)]
        yield from ((page, number) for index in block for number in rows[index])


def _contents_rows(texts: Sequence[str], pages: int, goes_on: bool) -> list[int]:
    """The rows of a page that are a list of contents; `goes_on` if the page before ends in one."""
    heading = next((index for index, text in enumerate(texts) if CONTENTS.fullmatch(text.strip(" .:"))), None)
    entries = {index: page for index, text in enumerate(texts) if (page := _entry_page(text)) is not None}
    with_leader = {index: page for index, page in entries.items() if LEADER.search(texts[index])}
    if len(with_leader) < FEWEST_ENTRIES and heading is None and not goes_on:
        return []
    if len(with_leader) < FEWEST_ENTRIES or heading is not None:
        entries = {index: page for index, page in entries.items() if heading is None or index > heading}
    else:
        entries = with_leader
    if len(entries) < FEWEST_ENTRIES or not _is_in_order(list(entries.values()), pages):
        return []
    first, last = min(entries), max(entries)
    if 2 * len(entries) < last - first + 1:
        return []
    return [*([] if heading is None else [heading]), *range(first, last + 1)]


def _entry_page(text: str) -> int | None:
    """The page that an entry of a list of contents names, 0 for a Roman number; None for other rows."""
    match = ENTRY_PAGE.search(text)
    if match is None or not LETTER.search(text, 0, match.start()):
        return None
    return int(match[0]) if match[0].isdigit() else 0


def _is_in_order(numbers: Sequence[int], pages: int) -> bool:
    """True if nearly all numbers are at least as large as the one before, and none is far beyond the last page."""
    falls = sum(after < before for before, after in itertools.pairwise(numbers))
    return 10 * falls <= len(numbers) and max(numbers, default=0) <= pages + PAGES_BEYOND


def _is_index(lines: Page, texts: Sequence[str], pages: int, was_index: bool) -> bool:
    """True if most rows of a page have dots before numbers of pages, in the order of the alphabet. `was_index`: so had the page before."""
    dotted = [text for text in texts if LEADER.search(text)]
    if len(dotted) < FEWEST_INDEX_ROWS or 2 * len(dotted) < len(texts):
        return False
    numbers = [match[0] for text in dotted if (match := INDEX_PAGES.search(text))]
    highest = max((int(number) for text in numbers for number in NUMBER.findall(text)), default=0)
    letters = [
        match[0].casefold() for line in lines if (match := LETTER.search(line.text)) and LEADER.search(line.text)
    ]
    falls = sum(after < before for before, after in itertools.pairwise(letters))
    is_sorted = (was_index or len(set(letters)) >= FEWEST_LETTERS) and 5 * falls <= len(letters)
    return is_sorted and 4 * len(numbers) >= 3 * len(dotted) and highest <= pages + PAGES_BEYOND
