"""Figures in a text: values with their units, however they are written."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal

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
# Languages that write 1,234.5; others write 1.234,5.
DECIMAL_POINT = frozenset({"", "en", "zh", "ja", "ko", "th", "he"})
SCALES = {
    3: "k thousand tsd tausend",
    6: "m mn mio million millions millionen millionen millones milioni miljoen",
    9: "bn mrd billion billions milliarde milliarden milliard milliards miliardi miljard",
}
POWERS = {word: power for power, words in SCALES.items() for word in words.split()}
# Scales that mean something else without a currency or a figure right before them.
LETTERS = frozenset({"k", "m", "mn", "bn"})
UNITS = {
    "%": "% percent prozent procent",
    "pp": "pp prozentpunkte",
    "EUR": "€ eur euro euros",
    "USD": "$ usd dollar dollars",
    "GBP": "£ gbp pound pounds",
    "JPY": "¥ jpy yen",
    "CHF": "chf francs franken",
}
UNIT_OF = {word: unit for unit, words in UNITS.items() for word in words.split()} | {
    "per cent": "%",
    "percentage points": "pp",
    "pour cent": "%",
    "por ciento": "%",
}
WORDS = {
    "en": "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen"
    " eighteen nineteen twenty",
    "de": "null eins zwei drei vier fünf sechs sieben acht neun zehn elf zwölf dreizehn vierzehn fünfzehn sechzehn siebzehn achtzehn"
    " neunzehn zwanzig",
    "fr": "zéro un deux trois quatre cinq six sept huit neuf dix onze douze treize quatorze quinze seize",
    "es": "cero uno dos tres cuatro cinco seis siete ocho nueve diez once doce trece catorce quince",
}
# "one" and "un" are articles as often as numbers.
FIRST_WORD = 2
_CURRENCY = r"(?:[€$£¥]|\b(?:EUR|USD|GBP|JPY|CHF)\b)"
_NUMBER = r"\d{1,3}(?:[ \u00a0\u202f'’]\d{3})+(?:[.,]\d+)?(?!\d)|\d+(?:[.,]\d+)*"
_SCALE = "|".join(sorted(map(re.escape, POWERS), key=len, reverse=True))
_UNIT = "|".join(sorted(map(re.escape, UNIT_OF), key=len, reverse=True))
FIGURE = re.compile(
    rf"(?P<before>{_CURRENCY})?\s?(?<![\w.,])(?P<number>{_NUMBER})"
    rf"(?:(?P<gap>[\s\u00a0]?)(?P<scale>{_SCALE})(?!\w)\.?)?"
    rf"(?:[\s\u00a0-]?(?P<unit>{_UNIT})(?!\w))?(?P<ordinal>st|nd|rd|th)?(?P<rest>[^\W\d_]?)",
    re.IGNORECASE,
)
LIST_MARK = re.compile(
    r"^\s*(?:#+\s*)?(?:[-*>]\s+)?(?:\(?\d{1,3}(?:\.\d{1,3})*[.)]|#+\s*\d+(?:\.\d+)*)\s", re.MULTILINE
)
CITATION = re.compile(r"\[\d+(?:\s?[,–-]\s?\d+)*\]")


@dataclass(frozen=True)
class WrittenFigure:
    """A value and its unit: `%`, `pp`, a currency, or nothing."""

    value: Decimal
    unit: str = ""


@dataclass(frozen=True)
class Values:
    """The figures and dates of a text."""

    figures: frozenset[WrittenFigure]
    dates: frozenset[str]

    def __bool__(self) -> bool:
        return bool(self.figures or self.dates)

    def agrees_with(self, other: "Values") -> bool:
        """True if both have the same dates and values. A unit may be missing on one side, but a percentage is not a number."""
        if self.dates != other.dates or self._amounts() != other._amounts():
            return False
        return all(_fits(figure, other.figures) for figure in self.figures) and all(
            _fits(figure, self.figures) for figure in other.figures
        )

    def missing_in(self, other: "Values") -> "Values":
        """The figures and dates that the other text does not have."""
        figures = frozenset(figure for figure in self.figures if not _fits(figure, other.figures))
        return Values(figures, self.dates - other.dates)

    def _amounts(self) -> set[Decimal]:
        return {figure.value for figure in self.figures}


def find_values(text: str, language: str = "", *, words: bool = True) -> Values:
    """The figures and dates of a text, without the numbers of lists, headings and citations.

    With `words`, small numbers from two count if they are spelled out, in English, German, French and Spanish.
    """
    dates, rest = take_dates(LIST_MARK.sub(" ", CITATION.sub(" ", text)))
    figures = set(_read_figures(rest, language))
    if words:
        figures |= set(_read_words(rest, language))
    return Values(frozenset(figures), dates)


def _fits(figure: WrittenFigure, others: frozenset[WrittenFigure]) -> bool:
    shares = ("%", "pp")
    for other in others:
        if figure.value == other.value:
            is_open = "" in (figure.unit, other.unit) and not {figure.unit, other.unit} & set(shares)
            if figure.unit == other.unit or is_open:
                return True
    return False


def _read_figures(text: str, language: str) -> Iterator[WrittenFigure]:
    for match in FIGURE.finditer(text):
        if match["rest"]:
            # A part of a code, such as 27001a.
            continue
        unit = UNIT_OF.get((match["before"] or match["unit"] or "").lower(), "")
        scale = (match["scale"] or "").lower()
        if scale in LETTERS and match["gap"] and unit not in UNITS:
            scale = ""
        value = _to_decimal(match["number"], language).scaleb(POWERS.get(scale, 0))
        yield WrittenFigure(value.normalize(), unit)


def _read_words(text: str, language: str) -> Iterator[WrittenFigure]:
    numbers = WORDS.get(language or "en", "").split()[FIRST_WORD:]
    present = set(re.findall(r"[^\W\d_]+", text.lower()))
    for value, word in enumerate(numbers, FIRST_WORD):
        if word in present:
            yield WrittenFigure(Decimal(value).normalize())


def _to_decimal(number: str, language: str) -> Decimal:
    """The value of a number: the last separator is the decimal one, unless it groups three digits as the language does."""
    plain = re.sub(r"[ \u00a0\u202f'’]", "", number)
    separators = re.findall(r"[.,]", plain)
    if not separators:
        return Decimal(plain)
    last = separators[-1]
    digits = len(plain) - plain.rindex(last) - 1
    grouping = "," if language in DECIMAL_POINT else "."
    is_grouped = digits == 3 and (separators.count(last) > 1 or (last == grouping and len(set(separators)) == 1))
    if is_grouped or separators.count(last) > 1:
        return Decimal(re.sub(r"[.,]", "", plain))
    whole, _, fraction = plain.rpartition(last)
    return Decimal(f"{re.sub(r'[.,]', '', whole)}.{fraction}")


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
