"""Street addresses as the countries of a language write them: the word for a street, its name, its number, postcode and town."""

import re
from collections.abc import Iterator

from services.anonymization.recognise.languages.definition import LanguageDefinition

SMALL_LETTERS = "a-zß-öø-ÿāăąćĉċčďđēĕėęěĝğġģĥħĩīĭįıĵķĺļľŀłńņňŋōŏőœŕŗřśŝşšţťŧũūŭůűųŵŷźżž"
CAP = rf"[^\W\d_{SMALL_LETTERS}][\w'’.-]*"
SMALL = (
    r"(?:de|du|des|d['’]|la|le|les|l['’]|del|della|delle|dei|degli|di|da|do|dos|das|el|los|las|y|e|i|von|van|der|den|het|ten|ter|zur|zum|am|an|im"
    r"|sur|sous|en|bei|pod|nad|na|św\.|gen\.|ks\.|dr\.)"
)
NAME = rf"(?:(?:{SMALL}[ ]?)*(?:{CAP}|\d{{1,2}}(?=[ ]{CAP})))(?:[ ](?:{SMALL}[ ]?)*{CAP}){{0,4}}"
NUMBER = r"(?:n[°ºr.]{0,2}[ ]?)?\d{1,5}[ ]?[A-Za-z]?(?![\w])(?:[ ]?(?:bis|ter|[-/][ ]?\d{1,4}[a-z]?))?"
REST = (
    r"(?:,?[ ]?(?:\d{1,2}[°ºª.]{1,2}[ ]?(?:[A-Za-zçãéºª]{1,12}\.?)?"
    r"|(?i:piso|puerta|esc\.|apto?\.?|appt?\.?|appartamento|apartamento|appartement|bus|lok\.|m\.|int\.|interno|scala|piano|étage|bât\.|lote|Whg\.)"
    r"[ ]?[\w.ºª]{1,6}(?!\w)|[A-Z]\b)){0,3}"
)
BREAK = r"(?:[ ]*,[ ]*|[ ]*\n[ \t]*|[ ]+[-–][ ]+|[ ]+)"
# Words between a street and its town in a sentence.
TOWN_WORDS = r"à|in|a|te|we|w|em|en"
TOWN = rf"{CAP}(?:[ '’-](?:{SMALL}[ ])?(?:{CAP}|{SMALL}[ ]{CAP})){{0,3}}(?:[ ]\([A-Z]{{2}}\)|,?[ ][A-Z]{{2}}(?!\w))?"


class StreetForms:
    """The patterns of one language."""

    def __init__(self, language: LanguageDefinition) -> None:
        self._forms = tuple(_forms(language))

    def find(self, text: str) -> Iterator[tuple[int, int]]:
        """The places of addresses in a paragraph."""
        for form in self._forms:
            for match in form.finditer(text):
                yield match.start(), match.start() + len(match[0].rstrip(" .,'’-\n"))


def _forms(language: LanguageDefinition) -> Iterator[re.Pattern[str]]:
    code = language.postcode
    if not code:
        return
    town = (
        rf"(?:{BREAK}(?:{code})(?!\w)(?:(?:,?[ ]|[ ]*\n[ \t]*){TOWN})?|{BREAK}{TOWN},?[ ](?:{code})(?!\w)"
        rf"|,[ ]*{TOWN}(?=[ ]*(?:[.,;\n)]|$))|[ ](?:{TOWN_WORDS})[ ]{TOWN})?"
    )
    if language.street_first:
        kinds = _alternatives(language.street_first)
        kind = rf"(?<!\w)(?i:{kinds})(?![\w])"
        yield re.compile(rf"{kind}[ ]?{NAME},?[ ](?:{NUMBER}){REST}{town}")
        yield re.compile(rf"(?<![\w.,/-])\d{{1,4}}(?:[ ]?(?:bis|ter|quater))?,?[ ]{kind}[ ]{NAME}{town}")
        yield re.compile(rf"{kind}[ ]{NAME}{BREAK}(?:{code})(?!\w)[ ]{TOWN}")
        # `s/n` stands for a street without numbers.
        yield re.compile(rf"{kind}[ ]{NAME},?[ ](?i:s/n)\b{town}")
    if language.street_last:
        kinds = _alternatives(language.street_last)
        yield re.compile(rf"(?<!\w)(?:{CAP}(?i:{kinds})|(?:{CAP}[ -]){{1,2}}(?i:{kinds}))[ ]{NUMBER}{REST}{town}")
    # A postcode and a town that fill a line, with the line above if that ends with a number.
    yield re.compile(
        rf"(?m:^)(?:{CAP}[^\n,;:]{{1,40}}[ ]\d{{1,5}}[ ]?[A-Za-z]?[ ]*\n)?[ \t]*(?:{code})[ ]{TOWN}(?m:[ ]*$)"
    )


def _alternatives(words: tuple[str, ...]) -> str:
    return "|".join(sorted((re.escape(word) for word in words), key=len, reverse=True))
