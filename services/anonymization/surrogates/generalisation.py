"""Finding dates, amounts of money, ages and postcodes by their form, and generalising them and addresses."""

import re
from bisect import bisect_right
from collections.abc import Callable, Iterator

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
# Postcodes on their own. A letter after the digit occurs in few British districts, so that "E2E 4GB" does not count.
BRITISH_AREAS = (
    "AB|AL|B|BA|BB|BD|BH|BL|BN|BR|BS|BT|CA|CB|CF|CH|CM|CO|CR|CT|CV|CW|DA|DD|DE|DG|DH|DL|DN|DT|DY|E|EC|EH|EN|EX|FK|FY|G|GL|GU|GY|HA|HD"
    "|HG|HP|HR|HS|HU|HX|IG|IM|IP|IV|JE|KA|KT|KW|KY|L|LA|LD|LE|LL|LN|LS|LU|M|ME|MK|ML|N|NE|NG|NN|NP|NR|NW|OL|OX|PA|PE|PH|PL|PO|PR|RG|RH"
    "|RM|S|SA|SE|SG|SK|SL|SM|SN|SO|SP|SR|SS|ST|SW|SY|TA|TD|TF|TN|TQ|TR|TS|TW|UB|W|WA|WC|WD|WF|WN|WR|WS|WV|YO|ZE"
)
STATES = (
    "A[KLRZ]|C[AOT]|D[CE]|FL|GA|HI|I[ADLN]|K[SY]|LA|M[ADEINOST]|N[CDEHJMVY]|O[HKR]|PA|RI|S[CD]|T[NX]|UT|V[AT]|W[AIVY]"
)
POSTCODE_WORDS = (
    "zip(?:[ -]?code)?|post(?:al)?[ -]?code|plz|postleitzahl|code postal|código postal|cap|kod pocztowy|postcode"
)
POSTCODES = (
    re.compile(
        rf"\b(?:(?:{BRITISH_AREAS})\d{{1,2}}|(?:E1|N1|W1|SE1|SW1|NW1|EC[1-4]|WC[12])[A-HJKMNPRSTUVWXY])"
        r" \d[ABD-HJLNP-UW-Z]{2}\b"
    ),
    re.compile(rf"\b(?:{STATES})\s(?P<code>\d{{5}}(?:-\d{{4}})?)\b"),
    re.compile(rf"\b(?i:{POSTCODE_WORDS}):?\s+(?P<code>\d{{2,5}}(?:-\d{{3,4}})?)\b"),
    re.compile(r"(?<!\w)(?:D|DE|F|A|CH|I|E|PL|B|L)-(?P<code>\d{2}-\d{3}|\d{4,5})(?=\s+[^\W\d])"),
)
CODE_START = re.compile(r"[A-Z]+(?=\d)|\d{2,3}")
# Areas of the first three digits with 20,000 people or fewer in the 2000 census, which Safe Harbor changes to 000
# (45 CFR 164.514(b)(2)(i)(B); HHS, "Guidance Regarding Methods for De-identification", 2012).
SMALL_ZIP_AREAS = frozenset((
    "036", "059", "063", "102", "203", "556", "692", "790", "821", "823", "830", "831", "878", "879", "884", "890", "893",
))  # fmt: skip
OLDEST_PLAIN_AGE = 89
# Without a digit, a phrase such as "last week" is already coarse.
TELLING_DATE = re.compile(r"\d")
SCORE = 0.6
OLDEST = 120


def find(text: str, wanted: set[str]) -> Iterator[Finding]:
    """Findings of the wanted types among DATE_TIME, MONEY, AGE and POSTCODE."""
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
    if "POSTCODE" in wanted:
        for form in POSTCODES:
            group = "code" if "code" in form.groupindex else 0
            yield from (Finding(*match.span(group), "POSTCODE", SCORE) for match in form.finditer(text))


def generalise(entity_type: str, value: str, how: Coarseness) -> str | None:
    """A coarser value that is still true, or None if the value is not understood."""
    coarser: dict[str, Callable[[], str | None]] = {
        "DATE_TIME": lambda: _date(value, how.date_time) or (None if TELLING_DATE.search(value) else value),
        "DATE_OF_BIRTH": lambda: _date(value, how.date_of_birth),
        "ADDRESS": lambda: _town(value) if how.address == "town" else _postcode_area(value),
        "POSTCODE": lambda: _postcode_start(value),
        "MONEY": lambda: _band(value, how.money_bands),
        "AGE": lambda: _years(value, how.age_years),
    }
    return coarser[entity_type]() if entity_type in coarser else None


def _years(value: str, span: int) -> str | None:
    if not re.fullmatch(r"\d{1,3}", value):
        return None
    if int(value) > OLDEST_PLAIN_AGE:
        return f"{OLDEST_PLAIN_AGE + 1}+"
    if not span:
        return value
    first = int(value) // span * span
    return f"{first}-{first + span - 1}"


def _date(value: str, extent: str) -> str | None:
    date = dates.read(value)
    if date:
        return date.coarser(extent)
    month = dates.MONTH.search(value) if extent == "month" else None
    return month[0] if month else None


def _postcode_start(value: str) -> str | None:
    """The area of a British postcode, or the first digits of another: three of five and more digits, otherwise two."""
    match = CODE_START.match(value)
    if match is None:
        return None
    digits = sum(letter.isdigit() for letter in value)
    start = match[0] if match[0].isalpha() else value[: 3 if digits >= 5 and "-" not in value[:3] else 2]
    return "000" if start in SMALL_ZIP_AREAS else start


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
