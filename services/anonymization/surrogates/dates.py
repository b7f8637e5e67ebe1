"""Reading dates as people write them, rewriting them with other parts, and generalising them."""

import calendar
import re
from dataclasses import dataclass
from datetime import date

from services.anonymization.recognise.languages.definition import CODES, load_language

# Whole names only: abbreviations such as `set` and `out` are English words.
FOREIGN_MONTHS = tuple(
    months
    for language in map(load_language, CODES)
    if language and language.code != "en"
    for months in language.months
    if (all(len(name) > 2 for name in months) and len(months[1]) > 4) or language.code == "pl"
)
MONTHS = (tuple(calendar.month_name)[1:], tuple(calendar.month_abbr)[1:], *FOREIGN_MONTHS)
NAMES = {name.casefold(): (names, number) for names in reversed(MONTHS) for number, name in enumerate(names, 1)} | {
    "sept": (MONTHS[1], 9)
}
# Names that languages with capitals share with languages without: `april` is Dutch.
SMALL_NAMES = {
    name: (names, number) for names in reversed(MONTHS) for number, name in enumerate(names, 1) if name.islower()
}
NAME = "(?P<name>" + "|".join(sorted(NAMES, key=len, reverse=True)) + r")(?!\w)\.?"
# Between the parts of a date in words: `3 de marzo de 2020`.
OF = r"(?:of|de|del|do) +"
YEAR = r"(?P<year>(?:1[89]|20)\d{2})(?!\d)"
DAY = r"(?<!\d)(?P<day>\d{1,2})"
SUFFIX = "(?P<suffix>st|nd|rd|th)?"
# From the most to the least complete form. Numeric dates are read day first unless that gives no date.
FORMS = tuple(
    re.compile(form, re.IGNORECASE)
    for form in (
        rf"{DAY}{SUFFIX}[.º°]?,? +(?:{OF})?{NAME},? +(?:{OF})?{YEAR}",
        rf"(?<!\w){NAME} +{DAY[:-1]}){SUFFIX},? +{YEAR}",
        rf"(?<!\d){YEAR}-(?P<month>\d{{2}})-(?P<day>\d{{2}})(?!\d)",
        rf"{DAY}(?P<mark>[./-])(?P<month>\d{{1,2}})(?P=mark)(?P<year>\d{{4}}|\d{{2}})(?!\d)",
        rf"(?<!\w){NAME},? +(?:{OF})?{YEAR}",
        rf"(?<!\d){YEAR}-(?P<month>0[1-9]|1[0-2])(?!-?\d)",
        rf"(?<!\d){YEAR}",
    )
)
# Month names as they are capitalised, so that the verb `may` does not match.
WRITTEN = "(?:" + "|".join(name for names in MONTHS for name in sorted(names, key=len, reverse=True)) + r")(?!\w)\.?"
MONTH = re.compile(rf"(?<!\w){WRITTEN}")
# A day without a year.
UNDATED = re.compile(rf"{DAY}{SUFFIX}\.?,? +(?:of +)?{WRITTEN}|(?<!\w){WRITTEN} +\d{{1,2}}(?:st|nd|rd|th)?(?![\w])")
# A date may occur in two lines or cells.
BREAK = re.compile(r" *[\t\n]\s*")
# Two-digit years from 30 on are in the 1900s.
PIVOT = 30


@dataclass(frozen=True)
class WrittenDate:
    """A date in a text. Missing parts are 0; `match` shows how the date is written."""

    year: int
    month: int
    day: int
    match: re.Match[str]
    month_first: bool = False
    language: str = ""

    @property
    def whole(self) -> date | None:
        """The date if day, month and year are known, otherwise None."""
        return date(self.year, self.month, self.day) if self.day else None

    def rewrite(self, other: date) -> str:
        """Another date in the same form."""
        parts = dict(self.match.groupdict())
        text, start = self.match[0], self.match.start()
        spans = sorted(
            (self.match.span(name), name) for name, part in parts.items() if part is not None and name != "mark"
        )
        for (first, last), name in reversed(spans):
            text = text[: first - start] + self._part(name, parts[name], other) + text[last - start :]
        return self.match.string[:start] + text + self.match.string[self.match.end() :]

    def _part(self, name: str, written: str, other: date) -> str:
        match name:
            case "year":
                return f"{other.year % 100:02d}" if len(written) == 2 else str(other.year)
            case "name":
                return _match_case(_names_of(written, self.language)[0][other.month - 1], written)
            case "suffix":
                return "th" if 10 < other.day < 20 else {1: "st", 2: "nd", 3: "rd"}.get(other.day % 10, "th")
            case _:
                number = other.day if (name == "day") is not self.month_first else other.month
                return f"{number:02d}" if written.startswith("0") or len(written) == 2 else str(number)

    def coarser(self, extent: str) -> str:
        """The month and year in the same form; for `year`, only the year."""
        if extent == "year" or not self.month:
            return str(self.year)
        parts = self.match.groupdict()
        if parts.get("name"):
            return f"{parts['name']} {self.year}"
        mark = parts.get("mark")
        return f"{self.month:02d}{mark}{self.year}" if mark else f"{self.year}-{self.month:02d}"


def read(value: str, language: str = "") -> WrittenDate | None:
    """The date in a value, or None. The language decides whose month it is if several have the name."""
    value = BREAK.sub(" ", value)
    for form in FORMS:
        match = form.search(value)
        written = _from_match(match, language) if match else None
        if written is not None:
            return written
    return None


def _from_match(match: re.Match[str], language: str) -> WrittenDate | None:
    parts = match.groupdict()
    year = int(parts["year"])
    if len(parts["year"]) == 2:
        year += 1900 if year >= PIVOT else 2000
    name = parts.get("name")
    month = _names_of(name, language)[1] if name else int(parts.get("month") or 0)
    day = int(parts.get("day") or 0)
    month_first = bool(parts.get("mark")) and month > 12 >= day
    if month_first:
        month, day = day, month
    # Systems write 00.00.0000 for an unknown date.
    is_empty = not year or (parts.get("day") and not (day and month))
    if is_empty or month > 12 or day > calendar.monthrange(year, month or 1)[1]:
        return None
    return WrittenDate(year, month, day, match, month_first, language)


def _names_of(written: str, language: str) -> tuple[tuple[str, ...], int]:
    """The language's month names, and the number of the month that is written."""
    known = load_language(language)
    for months in known.months if known else ():
        if written in months:
            return months, months.index(written) + 1
    return SMALL_NAMES.get(written) or NAMES[written.casefold()]


def _match_case(name: str, like: str) -> str:
    return name.upper() if like.isupper() else name
