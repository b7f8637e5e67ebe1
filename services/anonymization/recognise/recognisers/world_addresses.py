"""Street addresses of many countries, recognised by a unit, a postcode, a country, a word for a street, or the phrase before them."""

import re
from collections.abc import Iterator

from faker.providers.address.en import Provider as Countries

from services.anonymization.domain import Finding
from services.anonymization.recognise.lexicon import Lexicon
from services.anonymization.recognise.tokens import blank_long_runs

ADDRESS = "ADDRESS"
NUMBER = r"\d{1,6}[A-Za-z]?(?:[-/]\d{1,4}[A-Za-z]?)?"
# A full stop within a name belongs to an abbreviation; otherwise it ends a sentence.
CAP = r"[^\W\d_a-zß-öø-ÿ](?:[\w'’-]*|\w{0,3}\.)"
SMALL = (
    r"(?:de|du|des|del|della|delle|dei|di|da|do|dos|das|la|le|les|el|los|las|van|von|der|den|het|in|op|of|the|upon"
    r"|st\.|u\.|út|utca|tér|ulica|cesta|trg|y|e|i|na|nad|pod|am|an|im|zur|zum)"
)
NAME = rf"(?:{CAP}|\d{{1,3}}(?:st|nd|rd|th)|d['’]{CAP}|l['’]{CAP})(?:[ ](?:{CAP}|{SMALL}|\d{{1,4}}(?=[ ]{CAP}))){{0,5}}"
# A full stop after a house number is part of it in some countries; at the end of a sentence it is not.
DOT = r"(?:\.(?=[ ]*(?:[,\n]|Apt|Suite|Unit|Flat)))?"
# Between numbers, the word for a street may have a small letter: `310 Luige tee 56`.
NAMED = rf"{NAME}(?:[ ][^\W\d_]{{2,12}}(?=,?[ ]\d))?"
STREET = rf"(?:(?:{NUMBER},?[ ]){{1,2}}{NAMED}(?:,?[ ]{NUMBER}{DOT})?|{NAME},?[ ]{NUMBER}{DOT})"
UNIT = r"(?:Suite|Ste\.?|Apt\.?|Apartment|Unit|Flat|Room|Floor)[ ]\d{1,5}[A-Za-z]?"
COUNTRY = "|".join(sorted(map(re.escape, Countries.countries), key=len, reverse=True)) + (
    r"|UK|U\.K\.|USA|U\.S\.A\.|United States|England|Scotland|Wales|Russia|South Korea|Vietnam|Cyprus(?: \((?:Greek"
    r"|Anglicized)\))?|Czechia|Türkiye|Iran"
    r"|Deutschland|Österreich|Schweiz|Suisse|Italia|España|Polska|Nederland|België|Belgique|Brasil"
)
POSTCODE = (
    r"(?:[A-Z]{1,2}-)?\d{4,6}(?:-\d{3,4})?|\d{3}[ ]\d{2}|[A-Z]{1,2}\d[A-Z\d]?[ ]\d[A-Z]{2}|[A-Z]\d[A-Z][ ]?\d[A-Z]\d"
    r"|\d{4}[ ][A-Z]{2}"
)
# The space between the parts of an address, also on quoted lines.
BREAK = r"(?:[ ]*,?[ ]*\n[ \t>|?}]*,?[ ]*|,[ ]*|[ ])"
TOWN = rf"{CAP}(?:[ -](?:{CAP}|{SMALL})){{0,4}}"
REGION = r"(?:[A-Z]{2,3}|nan)"
END = rf"(?:{BREAK}{REGION}(?![\w]))?(?:{BREAK}(?:{COUNTRY})(?!\w))?(?:{BREAK}(?:{POSTCODE})(?!\w))?"
# Words for a street in other languages, after and before its name.
AFTER_NAME = (
    r"(?:street|gatan|vägen|gränd|backen|torget|stigen|vej|gade|stræde|allé|veien|vegen|gata|gate|bakken|katu|tie|polku|kuja|tori"
    r"|straat|laan|weg|plein|kade|gracht|singel|dijk|dreef|hof|steeg|stræti|braut|vegur|straße|strasse|gasse|platz"
    r"|allee|ring|ufer|damm|pfad)"
)
BEFORE_NAME = (
    r"Calle|Avenida|Avda?\.?|Plaza|Pza\.?|Paseo|Camino|Carretera|Ctra\.?|Carrer|Ronda|Rúa|Rua|Travessa|Largo|Praça|Alameda|Estrada|R\."
    r"|Via|Viale|Piazza|Piazzale|Corso|Vicolo|Strada|Contrada|Rue|Boulevard|Bd\.?|Chemin|Impasse|Allée|Quai|Place|Route|Chaussée"
    r"|[Uu]l\.|[Aa]l\.|[Pp]l\.|[Oo]s\.|Ulica|Aleja|Aleje|Strada|Bulevardul|Calea|Náměstí|Třída|Ulice|Trg|Cesta"
)
SEPARATE_AFTER = (
    r"(?:út|utca|tér|köz|ulica|cesta|trg|Cad\.|Caddesi|Sok\.|Sokak|Bulvarı|Marg|Nagar|tn|mnt|pst|iela|gatvė)"
)
MONTHS = frozenset((
    "january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november", "december", "jan", "feb",
    "mar", "apr", "jun", "jul", "aug", "sep", "sept", "oct", "nov", "dec", "janvier", "février", "mars", "avril", "mai", "juin", "juillet",
    "août", "septembre", "octobre", "novembre", "décembre", "januar", "februar", "märz", "juni", "juli", "oktober", "dezember",
))  # fmt: skip
WITH_UNIT = re.compile(rf"(?<![\w.,/-]){STREET}{BREAK}{UNIT}(?:{BREAK}{TOWN})?{END}")
UNIT_FIRST = re.compile(rf"(?<!\w){UNIT}{BREAK}{NUMBER}[ ]{NAME}(?:[ ]{NUMBER}{DOT})?(?:{BREAK}{TOWN})?{END}")
WITH_CODE = re.compile(
    rf"(?<![\w.,/-])(?:(?:{NUMBER}[ ]){{1,2}}{NAMED}(?:[ ]{NUMBER}{DOT})?|{NAME}[ ]{NUMBER}{DOT})(?:[ ]*,[ ]*|[ ]*\n[ \t>|?}}]*){TOWN}"
    rf"(?:{BREAK}{REGION}(?!\w)(?:{BREAK}(?:{COUNTRY})(?!\w))?{BREAK}(?:{POSTCODE})(?!\w)|{BREAK}(?:{COUNTRY})(?!\w)"
    rf"(?:{BREAK}(?:{POSTCODE})(?!\w))?)"
)
BETWEEN_NUMBERS = re.compile(
    rf"(?<![\w.,/-])\d{{1,6}}[ ](?P<name>{NAME})[ ]\d{{1,4}}[a-z]?\.?(?=[ ]*(?:[,;\n)]|$)|\.(?:\s|$)|[ ]St\.)(?:,[ ]{TOWN})?"
)
MILITARY = re.compile(
    r"(?:\b(?:PSC|CMR|Unit)[ ]\d{1,5},?[ ]Box[ ]\d{1,5}|\bUS(?:S|NS|NV|CGC)[ ][^\n,]{2,30})[ ]*[,\n][ ]*(?:APO|FPO"
    r"|DPO),?[ ]A[AEP][ ]\d{5}(?:-\d{4})?"
)
CORNER = re.compile(
    rf"\b(?:the )?(?i:corner of) (?:{NUMBER} )?{CAP}(?:[ ](?:{CAP}|{SMALL})){{0,4}}?(?:[ ]{NUMBER})?[ ]and[ ]"
    rf"(?:{NUMBER} )?{CAP}(?:[ ](?:{CAP}|{SMALL}(?=[ ]{CAP}))){{0,4}}(?:[ ]{NUMBER}(?!\w))?"
)
FOREIGN = re.compile(
    rf"(?<!\w)(?:{NUMBER},?[ ])?(?:(?:{CAP}[ -])?(?P<compound>[^\W\d_a-z][\w'’-]*?{AFTER_NAME})|(?:{BEFORE_NAME})[ ]"
    rf"(?:{SMALL}[ ])*(?:{CAP}|\d{{1,2}}(?=[ ]{CAP}))(?:[ ](?:{SMALL}[ ])*{CAP}){{0,4}}"
    rf"|{CAP}(?:[ ]{CAP}){{0,3}}[ ]{SEPARATE_AFTER})(?:,?[ ](?:n[°º.]?[ ]?|nr\.?[ ]|č\.[ ])?"
    rf"\d{{1,5}}[A-Za-z]?(?:[-/]\d{{1,4}}[A-Za-z]?)?{DOT})(?!\w)"
    rf"(?:{BREAK}(?:{POSTCODE})[ ]{TOWN}|,[ ]{TOWN}(?=[ ]*(?:[,.;\n)]|$)))?(?:,[ ](?:{COUNTRY})(?!\w))?"
)
SPOKEN = re.compile(
    r"(?i:\b(?:address(?: is| to)?(?: the same)?|lives? (?:at|in|on)|living (?:at|in)|lived (?:at|in)|resid(?:es"
    r"|ing|ent) (?:at|of)|located (?:at|in)|off at|meet (?:me|you|us) at|return to|taxi to|sent? to"
    rf"|ship(?:ped)? to|deliver(?:ed)? to|moved to|office is at|restaurant is at|arrived at|drop(?:ped)? (?:it )?off at)[:\s]{{1,4}}"
    rf"(?:it is )?)(?P<value>{NUMBER}[ ]{NAME}(?:[ ]{NUMBER}{DOT})?(?:{BREAK}{UNIT})?"
    rf"(?:,[ ]?{TOWN}){{0,2}})"
)
ON_STREET = re.compile(
    rf"(?i:\b(?:lives on|station is on|office is on|shop is on|side of|enter on|parked (?:on|in))) (?P<value>{CAP}"
    rf"(?:[ ]{CAP}){{0,4}}(?:[ ]{NUMBER}{DOT})?(?:[ ](?:[Ss]treet|[Rr]oad|[Aa]venue|St\.))?)"
)
CODE_LABEL = re.compile(
    r"(?i:\b(?:zip(?: ?code)?|post ?code|postal code|plz|postleitzahl|code postal|código postal|eircode)(?: is|:"
    rf"| ist| est)?)[ ]?[:]?[ ](?P<value>{POSTCODE})(?!\w)"
)
# What makes an address impossible, so that the patterns need not run.
MAX_LINES = 7


class WorldAddressRecogniser:
    """Finds street addresses in a paragraph."""

    def __init__(self, lexicon: Lexicon) -> None:
        self._lexicon = lexicon

    def find(self, text: str) -> list[Finding]:
        """Addresses with a number, corners of streets, streets that a phrase announces, and labelled postcodes."""
        if not any(map(str.isupper, text)) and not any(map(str.isdigit, text)):
            return []
        text = blank_long_runs(text)
        return [finding for finding in self._all(text) if not self._is_date(text, finding)]

    def _all(self, text: str) -> Iterator[Finding]:
        if any(map(str.isdigit, text)):
            for form, score in ((WITH_UNIT, 0.975), (UNIT_FIRST, 0.975), (WITH_CODE, 0.9), (MILITARY, 0.98)):
                yield from (Finding(match.start(), match.end(), ADDRESS, score) for match in form.finditer(text))
            for match in FOREIGN.finditer(text):
                if not match["compound"] or not self._lexicon.is_plain(match["compound"]):
                    yield Finding(match.start(), match.end(), ADDRESS, 0.88)
            for match in BETWEEN_NUMBERS.finditer(text):
                if not self._is_ordinary(match["name"]):
                    yield Finding(match.start(), match.end(), ADDRESS, 0.75)
            for match in SPOKEN.finditer(text):
                yield Finding(match.start("value"), match.end("value"), ADDRESS, 0.85)
            for match in CODE_LABEL.finditer(text):
                yield Finding(match.start("value"), match.end("value"), "POSTCODE", 0.85)
        for match in CORNER.finditer(text):
            yield Finding(match.start(), match.end(), ADDRESS, 0.98)
        for match in ON_STREET.finditer(text):
            if not self._is_ordinary(match["value"]):
                yield Finding(match.start("value"), match.end("value"), ADDRESS, 0.6)

    def _is_ordinary(self, name: str) -> bool:
        """True if a word between the numbers never names a street: a month, a title, a department."""
        words = re.findall(r"[^\W\d_]+", name)
        lists = ("never", "departments", "not_names", "titles", "titles_male", "titles_female")
        return any(word.lower() in MONTHS or self._lexicon.has_any(lists, word) for word in words)

    def _is_date(self, text: str, finding: Finding) -> bool:
        """True if the only name between the first numbers is a month."""
        words = re.findall(r"[^\W\d_]{3,}", text[finding.start : finding.end])
        return bool(words) and words[0].lower() in MONTHS
