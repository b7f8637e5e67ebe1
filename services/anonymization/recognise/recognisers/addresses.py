"""Street addresses on one or more lines, in British, Irish, continental European and American form."""

import re
from collections.abc import Iterable, Iterator

from faker.providers.address.en_GB import Provider as British
from faker.providers.address.en_US import Provider as American

from services.anonymization.domain import Finding
from services.anonymization.recognise.lexicon import TITLES, Lexicon
from services.anonymization.recognise.tokens import blank_long_runs

ADDRESS = "ADDRESS"
CAP = r"(?:[^\W\d_a-zß-öø-ÿ][\w'’.-]*)"
# A full stop within a street name belongs to an abbreviation; otherwise it ends a sentence.
STREET_WORD = r"(?:[^\W\d_a-zß-öø-ÿ](?:[\w'’-]*|\w{0,2}\.))"
# A full stop after one of these belongs to it; after a whole word it ends the sentence.
ABBREVIATED = frozenset(
    ["st", "rd", "ln", "ave", "blvd", "trl", "cir", "dr", "ct", "pl", "pkwy", "hwy", "sq", "cres", "gdns", "ter"]
)
TOWN = r"(?:[^\W\d_a-zß-öø-ÿ](?:[\w'’/-]|\.(?=-))*|St\.|Bad|b\.|a\.)"
STATES = (
    r"(?:A[KLRZ]|C[AOT]|D[CE]|FL|GA|HI|I[ADLN]|GU|K[SY]|LA|M[ADEINOPST]|N[CDEHJMVY]|O[HKR]|P[AR]|AA|AE|AP"
        r"|AS|VI|RI|S[CD]|T[NX]|UT|V[AT]|W[AIVY]"
    r"|Alabama|Alaska|Arizona|Arkansas|California|Colorado|Connecticut|Delaware|Florida|Georgia|Hawaii"
        r"|Idaho|Illinois|Indiana|Iowa|Kansas|Kentucky|Louisiana|Maine"
    r"|Maryland|Massachusetts|Michigan|Minnesota|Mississippi|Missouri|Montana|Nebraska|Nevada"
        r"|New Hampshire|New Jersey|New Mexico|New York|North Carolina"
    r"|North Dakota|Ohio|Oklahoma|Oregon|Pennsylvania|Rhode Island|South Carolina|South Dakota|Tennessee"
        r"|Texas|Utah|Vermont|Virginia|Washington|West Virginia|Wisconsin|Wyoming)"
)  # fmt: skip
CODE = re.compile(
    r"(?P<gb>\b(?:GIR ?0AA|[A-Z]{1,2}\d[A-Z\d]?\s?\d[ABD-HJLNP-UW-Z]{2})\b)|(?P<ie>\b[A-Z]\d[\dW]\s[A-Z\d]{4}\b)"
    rf"|(?P<us>\b{STATES},?\s\d{{5}}(?:-\d{{4}})?\b)"
    rf"|(?P<eu>(?<!\d[.,–-])\b(?:[A-Z]{{1,2}}-)?\d{{4,5}}[ \t]{TOWN}"
    rf"(?:[ \t](?:am|an|im|in|der|den|dem|la|le|les|de|du|sur|sous|en|bei|{TOWN}))*)"
)
# The years of a copyright, which look like a postcode.
COPYRIGHT = re.compile(r"(?i:©|\(c\)|\bcopyright)[^\n]{0,40}\Z")
POSTCODE = re.compile(r"\b[A-PR-UWYZ][A-HK-Y]?\d[A-HJKPSTUW\d]? \d[ABD-HJLNP-UW-Z]{2}\b")
# `09/2011 - 06/2018` at the beginning of a line of a CV is a period, not a house number.
PERIOD = re.compile(r"(?:\d{1,2}[./])?(?:19|20)\d{2}[ ]?[-–—]")
SEPARATOR = re.compile(r",[ \t]*\n?[ \t]*|[ \t]*\n[ \t]*|[ \t]+[·|][ \t]+")
BEFORE_CODE = re.compile(r" (?=[A-Z]{1,2}\d|\d{5}\b|#|Apt|Unit|Suite|Ste)")
MAX_SEGMENTS = 7
MAX_CHARS = 200
WORD = re.compile(r"[\w'’./-]*\w")
UNIT = (
    r"(?:Flat|Unit|Suite|Ste|Apartment|Apt|Room|Rm|Floor|Fl|Level|Studio|Penthouse|Block|Building|Bldg|Lot"
    r"|Bay|Plot|Gate|Bât|Appt?|Wohnung|Whg|#)\.?\s?[\w/-]{1,6}|#\s?\w{1,5}|\d{1,2}(?:st|nd|rd|th) [Ff]loor"
    r"|\d{1,2}\. (?:OG|Stock|Etage)"
)
BOX = re.compile(
    (
        r"\b(?:P\.?\s?O\.?\s?Box|Post Office Box|Private Bag|Postfach"
        r"|Boîte Postale)\s(?:no\.? )?\d[\d ]{0,6}\d\b|\bB\.?P\.? \d{1,5}(?=,? ?\n?\d{5} )"
        r"|\bP\.?\s?O\.?\s?Box\s\d+\b"
    ),
    re.IGNORECASE,
)
DIRECTION = r"(?:N|S|E|W|NE|NW|SE|SW|North|South|East|West)\.?"
ARTICLES = ("Am", "An", "Im", "Zum", "Zur", "Auf", "The")
COUNTRY = (
    r"(?:United Kingdom|UK|U\.K\.|England|Scotland|Wales|Northern Ireland|Ireland|USA|U\.S\.A\."
    r"|United States(?: of America)?|Germany|Deutschland|France|Austria|Österreich|Switzerland|Schweiz)"
)
PART = re.compile(
    rf"(?P<unit>{UNIT})(?=[,.\n;]|$)|(?P<country>{COUNTRY})\b|(?P<state>{STATES})(?:,?\s\d{{5}}(?:-\d{{4}})?)?\b(?=[,.\n;)\s]|$)"
    rf"|(?P<town>{CAP}(?:[ -](?:{CAP}|upon|on|under|in|the|le|la|les|am|an|der|sur"
    rf"|of)){{0,3}})(?=[ \t]*(?:[,\n|·;)]|\.(?:\s|$)|$|\s[A-Z]{{1,2}}\d))"
)


def _forms(words: Iterable[str]) -> str:
    return "|".join(form for word in words for form in (word.title(), word.upper()))


class AddressRecogniser:
    """Finds street addresses in a paragraph."""

    def __init__(self, lexicon: Lexicon) -> None:
        self._lexicon = lexicon
        streets = sorted(lexicon.lists["streets"], key=len, reverse=True)
        short = _forms(word for word in streets if word in ABBREVIATED)
        whole = _forms(word for word in streets if word not in ABBREVIATED)
        after = "|".join(sorted(lexicon.lists["streets_after_number"], key=len, reverse=True))
        number = r"\d{1,5}(?:[A-Za-z]|[-–/]\d{1,4})?"
        self._bare = re.compile(
            rf"\b(?:{UNIT},?[ \n])?(?<![£$€.,\d]){number}(?:,?[ ]{DIRECTION})?(?:[ ](?:{STREET_WORD}|\d{{1,3}}(?:st|nd|rd"
            rf"|th))){{1,4}}?[ ](?:(?:{short})\b\.?|(?:{whole})\b)(?!['’])(?:[ ]{DIRECTION}(?![\w]))?"
            rf"|\b\d{{1,4}}(?:\s?(?:bis|ter|quater)\b)?,?\s(?i:{after})\s(?:(?:de|du|des|la|le|les|d['’]|l['’]"
            rf"|aux?)\s?)*{CAP}(?:[\s-](?:(?:de|du|des|la|le|les|et)\s)*{CAP})*"
        )
        rare = sorted({word.title() for provider in (British, American) for word in provider.street_suffixes})
        ends = "|".join([*rare, *(rf"{word.lower()}(?=[ \t]*[,\n])" for word in rare)])
        self._rare = re.compile(rf"\b(?:{UNIT},?[ \n])?{number}[ ](?P<named>{CAP})(?:[ ]{CAP})?[ ](?:{ends})\b")
        # `Unit 4, Bracken Mews`
        self._unit = re.compile(rf"\b(?:{UNIT}),?[ \n]{CAP}(?:[ ]{CAP}){{0,2}}[ ](?:{whole})\b(?!['’])")
        before = "|".join(sorted(lexicon.lists["streets_before_number"], key=len, reverse=True))
        self._german = re.compile(
            rf"\b(?:[^\W\d_a-z][\w-]*?(?:{before})|(?:(?:Am|An|Im|In|Auf|Zum|Zur|Unter|Hinter|Alte[rs]?|Neue[rs]?"
            rf"|Große[rs]?|Kleine[rs]?|Obere[rs]?|Untere[rs]?|Lange|{CAP})[ -](?:(?:der|dem|den"
            rf"|die)[ ])?){{1,3}}(?i:{before}))\.?\s\d{{1,4}}\s?[a-z]?(?:[-–/]\d{{1,4}}[a-z]?)?(?![\w])"
        )

    def find(self, text: str) -> list[Finding]:
        """Addresses. A street without a town counts if it has a number."""
        if not any(map(str.isdigit, text)):
            return []
        text = blank_long_runs(text)
        places = [place for match in CODE.finditer(text) if (place := self._around(text, match)) is not None]
        for pattern in (self._bare, self._unit, self._german, BOX):
            places += [(match.start(), self._onwards(text, match.end())) for match in pattern.finditer(text)]
        places += [
            (match.start(), self._onwards(text, match.end()))
            for match in self._rare.finditer(text)
            if self._lexicon.given(match["named"]) is not None or self._lexicon.is_surname(match["named"])
        ]
        joined = [place for place in _join_overlapping(places) if not PERIOD.match(text, place[0])]
        postcodes = [
            Finding(match.start(), match.end(), ADDRESS, 0.6)
            for match in POSTCODE.finditer(text)
            if not any(start <= match.start() < end for start, end in joined)
        ]
        return [*(Finding(start, end, ADDRESS, 0.97) for start, end in joined), *postcodes]

    def _around(self, text: str, code: re.Match[str]) -> tuple[int, int] | None:
        """Extend a postcode to the left, segment by segment, while the segments look like parts of an address."""
        start = None
        has_street = False
        if code["eu"] and COPYRIGHT.search(text, max(0, code.start() - 60), code.start()):
            return None
        for begin, end in self._segments(text, code.start()):
            if code["gb"] and self._is_upper_line(text, begin, end):
                start, has_street = begin, True
                continue
            tail = self._tail(text[begin:end])
            if tail is None and end > begin:
                break
            begins = begin if tail is None else begin + tail
            words = WORD.findall(text[begins:end])
            if has_street and not self._is_building(words):
                break
            start = begins if words else start
            has_street = has_street or self._is_street(words)
            if tail:
                break
        if start is None or not (has_street or (code["gb"] and "," in text[start : code.start()])):
            return None
        return start, self._end(text, code)

    def _is_upper_line(self, text: str, begin: int, end: int) -> bool:
        """True if `12 Isaac tunnel` or the like fills a line above a British postcode."""
        is_line = (begin == 0 or text[begin - 1] == "\n") and text[end : end + 1] == "\n"
        return (
            is_line
            and re.fullmatch(rf"(?:{UNIT}[ ,]?)?(?:\d{{1,4}}[A-Za-z]? )?{CAP} [a-z]{{3,12}}", text[begin:end])
            is not None
        )

    def _segments(self, text: str, end: int) -> Iterator[tuple[int, int]]:
        """The stretches between commas and line ends, from right to left."""
        floor = max(0, end - MAX_CHARS)
        breaks = [(match.start(), match.end()) for match in SEPARATOR.finditer(text, floor, end)]
        for _ in range(MAX_SEGMENTS):
            begin = breaks[-1][1] if breaks else floor
            yield begin, end
            if not breaks:
                return
            end = breaks.pop()[0]

    def _tail(self, segment: str) -> int | None:
        """The start of the address-like words at a segment's end, or None."""
        begin = None
        for match in reversed(list(WORD.finditer(segment))):
            word = match[0]
            if word[0].isupper() or word[0].isdigit() or self._lexicon.has("streets_after_number", word):
                if (self._lexicon.has("never", word) and word not in ARTICLES) or re.search(
                    r"[:;!?()]|\.\s", segment[match.end() : match.end() + 2]
                ):
                    break
                begin = match.start()
            elif self._ends_before(word, "" if begin is None else segment[begin:]):
                break
        return begin

    def _ends_before(self, word: str, rest: str) -> bool:
        """True for a lower-case word that is not part of addresses, and for `of` before a number."""
        small = self._lexicon.has("address_words", word) or word in ("bis", "ter")
        return not small or (word == "of" and any(map(str.isdigit, rest)))

    def _onwards(self, text: str, end: int) -> int:
        """Extend a street to the right over units, towns, postcodes and countries. A doubtful town counts only if more follows."""
        sure = end
        for _ in range(MAX_SEGMENTS):
            separator = SEPARATOR.match(text, end) or BEFORE_CODE.match(text, end)
            if separator is None:
                break
            code = CODE.match(text, separator.end())
            if code is not None:
                return self._onwards(text, self._end(text, code)) if not code["us"] else code.end()
            part = PART.match(text, separator.end())
            if part is None or self._is_no_town(part):
                break
            end = part.end()
            if part["town"] is None or self._lexicon.has("places", part["town"]) or self._is_last(text, part):
                sure = end
        return sure

    def _is_no_town(self, part: re.Match[str]) -> bool:
        words = WORD.findall(part["town"] or "")
        lists = ("never", "departments", "products", *TITLES, "person_labels", "kinds_last")
        return any(self._lexicon.has_any(lists, word) or self._lexicon.is_common_given(word) for word in words)

    def _is_last(self, text: str, part: re.Match[str]) -> bool:
        """An unusual word at the end of a line or cell is a town."""
        words = WORD.findall(part["town"])
        on_line = "\n" not in text[max(0, part.start() - 2) : part.start()]
        return on_line and len(words) <= 2 and not all(self._lexicon.is_plain(word) for word in words)

    def _is_street(self, words: list[str]) -> bool:
        numbered = any(word[0].isdigit() for word in words)
        named = any(self._lexicon.has("streets", word) for word in words[1:] or words) or any(
            self._lexicon.has("streets_after_number", word) for word in words
        )
        return (numbered and len(words) > 1) or named

    def _is_building(self, words: list[str]) -> bool:
        if words and all(word[0].isdigit() or word in ("bis", "ter") for word in words):
            return len(words) <= 2
        return any(self._lexicon.has("buildings", word) for word in words) or (
            len(words) <= 4 and any(self._lexicon.has("streets", word) for word in words)
        )

    def _end(self, text: str, code: re.Match[str]) -> int:
        """The end of a postcode. A town after a continental one ends with the last capitalised word of its line."""
        if not code["eu"]:
            return code.end()
        town = code[0].split("\n")[0].rstrip()
        words = town.split()
        while len(words) > 2 and (not words[-1][0].isupper() or self._lexicon.has("never", words[-1])):
            words.pop()
        return code.start() + len(town[: town.rindex(words[-1]) + len(words[-1])].rstrip(".'’"))


def _join_overlapping(places: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Join overlapping places."""
    joined: list[tuple[int, int]] = []
    for start, end in sorted(places):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return joined
