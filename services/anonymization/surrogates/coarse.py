"""Finding dates, amounts of money and ages by their form, and generalising them and addresses."""

import re
from bisect import bisect_right
from collections.abc import Iterator

from services.anonymization.domain import Coarseness, Finding
from services.anonymization.surrogates import dates

CURRENCY = r"[€£$¥]|(?:EUR|GBP|USD|CHF|JPY|PLN|SEK|DKK|NOK|CAD|AUD)"
NUMBER = r"\d{1,3}(?:[,.'’ ]\d{3})+(?:[.,]\d{1,2})?|\d+(?:[.,]\d{1,2})?"
SCALE = r"thousand|million|billion|mn|bn|[kKmM](?!\w)"
MONEY = re.compile(
    rf"(?<!\w)(?P<before>(?:{CURRENCY})\s?)(?P<number>{NUMBER})(?:\s?(?P<scale>{SCALE}))?(?!\w)"
    rf"|(?<![\w.,])(?P<number_first>{NUMBER})(?:\s?(?P<scale_first>{SCALE}))?(?P<after>\s?(?:{CURRENCY}|euros?|pounds|dollars))(?!\w)"
)
SCALES = {"k": 1e3, "thousand": 1e3, "m": 1e6, "mn": 1e6, "million": 1e6, "bn": 1e9, "billion": 1e9}
AGE = re.compile(
    r"(?i:\baged?\s+(?:of\s+)?|\bage:\s*)(?P<aged>\d{1,3})(?![\w.,/-]*\d)"
    r"|(?<![\w.,-])(?P<old>\d{1,3})(?=[ -]years?[ -]old\b|-year-old|\s?yo\b)"
)
UK_POSTCODE = re.compile(r"\b(?P<area>[A-Z]{1,2})\d[A-Z\d]?\s*\d[A-Z]{2}\b", re.IGNORECASE)
US_POSTCODE = re.compile(r"\b[A-Z]{2}\s+(?P<area>\d{3})\d{2}(?:-\d{4})?\b")
POSTCODE = re.compile(r"\b(?P<area>\d{2})\d{2,3}\b(?=\s+[^\W\d])")
# Without a digit, a phrase such as "last week" is already coarse.
TELLING_DATE = re.compile(r"\d")
SCORE = 0.6
OLDEST = 120


def find(text: str, wanted: set[str]) -> Iterator[Finding]:
    """Findings of the wanted types among DATE_TIME, MONEY and AGE."""
    if "DATE_TIME" in wanted:
        for form in (*dates.FORMS[:-1], dates.UNDATED):
            yield from (Finding(match.start(), match.end(), "DATE_TIME", SCORE) for match in form.finditer(text))
    if "MONEY" in wanted:
        yield from (Finding(match.start(), match.end(), "MONEY", SCORE) for match in MONEY.finditer(text))
    if "AGE" in wanted:
        for match in AGE.finditer(text):
            name = match.lastgroup or "aged"
            if int(match[name]) <= OLDEST:
                yield Finding(match.start(name), match.end(name), "AGE", SCORE)


def generalise(entity_type: str, value: str, how: Coarseness) -> str | None:
    """A coarser value that is still true, or None if the value is not understood."""
    match entity_type:
        case "DATE_TIME":
            return _date(value, how.date_time) or (None if TELLING_DATE.search(value) else value)
        case "DATE_OF_BIRTH":
            return _date(value, how.date_of_birth)
        case "ADDRESS":
            return _town(value) if how.address == "town" else _postcode_area(value)
        case "MONEY":
            return _band(value, how.money_bands)
        case "AGE":
            return _years(value, how.age_years)
        case _:
            return None


def _years(value: str, span: int) -> str | None:
    if not re.fullmatch(r"\d{1,3}", value):
        return None
    first = int(value) // span * span
    return f"{first}-{first + span - 1}"


def _date(value: str, extent: str) -> str | None:
    date = dates.read(value)
    if date:
        return date.coarser(extent)
    month = dates.MONTH.search(value) if extent == "month" else None
    return month[0] if month else None


def _postcode_area(value: str) -> str | None:
    match = UK_POSTCODE.search(value) or US_POSTCODE.search(value) or POSTCODE.search(value)
    return match["area"].upper() if match else None


def _town(value: str) -> str | None:
    """The last part of an address that is not a postcode, in any order of street and number."""
    lines = [part.strip() for part in re.split(r"[,\n]", value) if part.strip()]
    american = US_POSTCODE.search(value)
    if american and len(lines) > 2:
        return f"{lines[-2]}, {lines[-1][:2]}"
    for part in reversed(lines[1:]):
        plain = POSTCODE.sub("", UK_POSTCODE.sub("", US_POSTCODE.sub("", part))).strip(" .")
        if plain and not any(letter.isdigit() for letter in plain):
            return plain
    return None


def _band(value: str, bands: tuple[int, ...]) -> str | None:
    match = MONEY.fullmatch(value)
    if not match:
        return None
    before, after = match["before"] or "", match["after"] or ""
    scale = (match["scale"] or match["scale_first"] or "").casefold()
    amount = _number(match["number"] or match["number_first"]) * SCALES.get(scale, 1)
    place = bisect_right(bands, amount)
    if place == 0:
        return f"under {before}{bands[0]:,}{after}"
    if place == len(bands):
        return f"over {before}{bands[-1]:,}{after}"
    return f"{before}{bands[place - 1]:,} to {before}{bands[place]:,}{after}"


def _number(written: str) -> float:
    """The amount. A comma or full stop before the last one or two digits is the decimal mark."""
    whole = re.fullmatch(r"(.*?)(?:[.,](\d{1,2}))?", written)
    head, cents = whole.groups() if whole else (written, None)
    return float(f"{re.sub(r'[^0-9]', '', head)}.{cents or 0}")
