"""Dates in a text, each in one form however it is written."""

import re
from collections.abc import Callable

# English, German, French, Spanish, Italian, Dutch and Portuguese, from January.
MONTHS = (
    "jan january januar janvier enero ene gennaio januari janeiro",
    "feb february februar février fevrier febrero febbraio februari fevereiro",
    "mar march märz mars marzo maart março",
    "apr april avril abril aprile",
    "may mai mayo maggio mei maio",
    "jun june juni juin junio giugno junho",
    "jul july juli juillet julio luglio julho",
    "aug august août agosto augustus",
    "sep sept september septembre septiembre settembre setembro",
    "oct okt october oktober octobre octubre ottobre outubro",
    "nov november novembre noviembre novembro",
    "dec dez december dezember décembre diciembre dicembre dezembro",
)
NUMBERS = {name: number for number, names in enumerate(MONTHS, 1) for name in names.split()}
QUARTERS = {"first": 1, "second": 2, "third": 3, "fourth": 4}
_MONTH = "(?P<month>" + "|".join(sorted(NUMBERS, key=len, reverse=True)) + r")\b\.?"
_DAY = r"(?P<day>\d{1,2})(?!\d)"
_YEAR = r"(?P<year>(?:19|20)\d{2})\b"


def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(text, re.IGNORECASE)


def _date(match: re.Match[str]) -> str | None:
    groups = match.groupdict()
    name = groups["month"].lower()
    month, day = NUMBERS.get(name) or int(name), int(groups.get("day") or 0)
    if day <= 12 < month:
        day, month = month, day
    if not 1 <= month <= 12 or day > 31:
        return None
    return f"{groups.get('year') or '-'}-{month:02}" + (f"-{day:02}" if day else "")


def _quarter(match: re.Match[str]) -> str:
    quarter = match["quarter"].lower()
    return f"{match['year']}-Q{QUARTERS.get(quarter) or quarter}"


READERS: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], str | None]], ...] = (
    (_pattern(r"\b(?P<year>(?:19|20)\d{2})-(?P<month>\d{2})-(?P<day>\d{2})\b"), _date),
    (
        _pattern(
            rf"\b(?P<day>\d{{1,2}})(?:st|nd|rd|th|\.|º)?\s+(?:(?:of|de)\s+)?{_MONTH},?(?:\s+(?:del?\s+)?{_YEAR})?"
        ),
        _date,
    ),
    (_pattern(rf"\b{_MONTH}\s+{_DAY}(?:st|nd|rd|th)?(?:,?\s+{_YEAR})?"), _date),
    (_pattern(rf"\b{_MONTH}\s+(?:del?\s+)?{_YEAR}"), _date),
    (_pattern(rf"\b(?P<day>\d{{1,2}})[./](?P<month>\d{{1,2}})[./]{_YEAR}"), _date),
    (_pattern(rf"\bQ(?P<quarter>[1-4])[\s/-]*(?:of\s+)?{_YEAR}"), _quarter),
    (_pattern(rf"\b{_YEAR}[\s/-]*Q(?P<quarter>[1-4])\b".replace(r"\b[\s", r"[\s")), _quarter),
    (_pattern(rf"\b(?P<quarter>first|second|third|fourth)\s+quarter\s+(?:of\s+)?{_YEAR}"), _quarter),
)


def take_dates(text: str) -> tuple[frozenset[str], str]:
    """The dates as `2026-06-30`, `2026-06`, `--06-30` or `2026-Q2`, and the text without them.

    Of two numbers before a year, the first is the day unless only the second can be one.
    """
    dates: set[str] = set()
    for pattern, read in READERS:

        def replace(match: re.Match[str], read: Callable[[re.Match[str]], str | None] = read) -> str:
            date = read(match)
            if date is None:
                return match[0]
            dates.add(date)
            return " "

        text = pattern.sub(replace, text)
    return frozenset(dates), text
