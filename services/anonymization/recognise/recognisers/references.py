"""Case and reference numbers, by the words before them: applications, dockets, files, claims; in eight languages."""

import re

from services.anonymization.domain import Finding

CASE = "CASE_NUMBER"
NUMBER_WORD = r"(?:nos?\.?|numbers?|num\.?|nr\.?|n[°º.]{1,2}|#|id)"
NOUNS = (
    r"(?:application|app\.|case|docket|file|claim|appeal|petition|complaint|action|suit|indictment|decision|judgment"
    r"|proceedings?|matter|deal|ticket|incident|tender|permit|licen[cs]e|patent"
    r"|registration|crime|charge|warrant|dossier|order|contract|agreement|booking|requête|affaire|pourvoi|rôle|arrêt"
    r"|asunto|expediente|procedimiento|recurso|processo|procedimento|causa|fascicolo|zaak|rol|sprawa|wniosek)"
)
ABBREVIATIONS = (
    r"(?:(?:our |your |my )?ref(?:erence)?\.?(?: ?(?:no|number|code))?\.?|Az\.|Aktenzeichen|Geschäftszeichen|Gesch\.-?Z\."
    r"|Geschäftsnummer|Vorgangs(?:nummer|nr\.)|Unser Zeichen|Ihr Zeichen|RG n[°º]"
    r"|n[°º] de rôle|N[./]?Réf\.?|V[./]?Réf\.?|sygn\.(?: akt)?|rolnummer|zaaknummer|kenmerk|prot\.|R\.?G\.? n\.|exp\.|proc\.)"
)
REFERENCE = r"(?=[^\s,;]*\d)[A-Z\d]\w{0,14}(?:[./:–-]\w{1,14}){0,6}"
SPACED = r"(?P<value>\d{1,4} [A-Z][A-Za-z]{0,3} \d{1,6}/\d{2,4})"
NAMED = re.compile(rf"(?i:\b{NOUNS}[ -]?{NUMBER_WORD})[ :]{{0,3}}(?:[A-Z]\. ?)?(?P<value>{REFERENCE})")
LISTED = re.compile(r"(?i:\bnos\.|\bnumbers) (?P<list>\d{2,6}/\d{2,4}(?:(?:, | and |, and )\d{2,6}/\d{2,4})*)")
LABELLED = re.compile(rf"(?i:(?<!\w){ABBREVIATIONS})[ ]?[:.]?[ ]{{0,2}}(?:{SPACED}|(?P<plain>{REFERENCE}))")
BRACKETED = re.compile(r"(?i:\((?:no\.|n°|nr\.) ?)(?P<value>\d{2,6}/\d{2,4})\)")
CITATION = re.compile(
    r"(?P<value>\[\d{4}\] (?:\d )?[A-Z][A-Za-z]{1,7}(?: [A-Z][a-z]+)? \d{1,5}(?: \((?:[A-Z][a-z]+|[A-Z]{2,5})\))?)"
)
COURT = re.compile(
    r"\b(?P<value>\d{1,4}[-:]\d{2}-(?:cv|cr|md|mc|bk|ap|civ|crim)-\d{3,6}(?:-[A-Z]{2,4})*|\d{2,4} (?:Civ|Cr|CR|CV"
    r"|Misc)\.? ?\d{3,6}|[IVX]{1,4} (?:ZR|ZB|StR|AZR|ARs?|KR) \d{1,4}/\d{2})(?!\w)"
)
ENTRY = re.compile(r"\d{2,6}/\d{2,4}")
DATE = re.compile(r"^\d{1,2}[./-]\d{1,2}[./-]\d{2,4}\.?$|^(?:19|20)\d{2}$")
MIN_DIGITS = 2


class ReferenceRecogniser:
    """Finds numbers of cases, files and transactions, by which a person or a company can be looked up."""

    def find(self, text: str) -> list[Finding]:
        """Numbers, without their labels."""
        if not any(map(str.isdigit, text)):
            return []
        findings = [
            Finding(match.start("value"), match.end("value"), CASE, 0.9)
            for form in (NAMED, BRACKETED, CITATION, COURT)
            for match in form.finditer(text)
            if _is_reference(match["value"])
        ]
        for match in LABELLED.finditer(text):
            name = "value" if match["value"] else "plain"
            if _is_reference(match[name]):
                findings.append(Finding(match.start(name), match.end(name), CASE, 0.9))
        for match in LISTED.finditer(text):
            findings += [
                Finding(match.start("list") + entry.start(), match.start("list") + entry.end(), CASE, 0.9)
                for entry in ENTRY.finditer(match["list"])
            ]
        return findings


def _is_reference(value: str) -> bool:
    """True unless the value is a date, a year or too short to look anything up."""
    return sum(map(str.isdigit, value)) >= MIN_DIGITS and len(value) > MIN_DIGITS + 1 and not DATE.match(value)
