"""Numbers that are recognised by the words before them: passports, licences, accounts, staff; in four languages."""

import re

from services.anonymization.domain import Finding

NUMBER = r"(?i:[ -]?(?:no|nos|num|number|nummer|nr|n°|nº|id|code|ref(?:erence)?)\b\.?|[ -]?#)?"
# A value has a digit and at most five separators.
VALUE = r"(?P<value>(?=[A-Z]*[ /-]?[A-Z]*\d|\d)[A-Z\d]{1,12}(?:[ ./-]?[A-Z\d]{1,10}){0,5}\d[A-Z\d]*|(?=[A-Z]*\d)[A-Z\d]{5,14})(?![\w])"
LABELS = {
    "NATIONAL_ID": (
        r"passport|driv(?:ing|er'?s?|er’s) licen[cs]e|licen[cs]e (?:no|number)|nhs|national insurance|ni(?= n)"
            r"|nino|ssn|social security|itin|tax(?:payer)? (?:id|identification)|tin(?= |:)|utr|"
        r"reisepass|personalausweis(?:es)?|ausweis|führerschein|steuer-?id(?:entifikationsnummer)?"
            r"|steuerliche identifikationsnummer|identifikationsnummer|steuernummer|idnr|"
        r"rentenversicherungsnummer|sozialversicherungsnummer|versicherungsnummer|versichertennummer|krankenversichertennummer|kvnr|"
        r"sécurité sociale|passeport|carte d'identité|permis de conduire|"
        r"visa|biometric residence permit|residence permit|brp|id card|identity card|national id|hospital|mrn"
            r"|medical record|patient|chi(?= n)|medicare|medicaid"
    ),
    "ACCOUNT_NUMBER": (
        r"account|acct|a/c|sort ?code|routing|aba(?= )|policy|membership|member|customer|client|loyalty card"
            r"|kontonummer|konto-?nr|kto|blz|bankleitzahl|kundennummer|kunden-?nr|mitgliedsnummer|"
        r"versicherungsschein|sponsor licence|licence number|numéro de compte|numéro client"
    ),
    "EMPLOYEE_CODE": (

            r"employee|staff|payroll|personnel|badge|clock|worker|personalnummer|personal-?nr|mitarbeiternummer"
            r"|mitarbeiter-?nr|matricule|operator|emp"

    ),
    "PROJECT_CODE": r"project|projekt|matter|engagement|job(?= (?:no|number|code))",
}  # fmt: skip
JOIN = r"(?:\s?\([^()\n]{2,12}\))?(?:[a-zäöü ]{1,25}(?=:))?[ \t]*(?::|=|is|was|lautet|,|\))?[ \t]*(?:[A-Za-z]{3,5}:[ \t]*)?"
FORMS = {kind: re.compile(rf"(?<![\w])(?i:(?:{labels})){NUMBER}{JOIN}{VALUE}") for kind, labels in LABELS.items()}
MIN_DIGITS = {"NATIONAL_ID": 5, "ACCOUNT_NUMBER": 5, "EMPLOYEE_CODE": 3, "PROJECT_CODE": 3}
MIN_MIXED_DIGITS = 3
SORT_CODE = re.compile(r"(?i:sort ?code|s/c|bank)[^\n]{0,25}?(?<![\d-])(?P<value>\d{2}[- ]\d{2}[- ]\d{2})(?![\d-])")
ACCOUNT_AFTER = re.compile(r"\d{2}[- ]\d{2}[- ]\d{2}[^\n\d]{1,25}(?P<value>\d{8})\b")
PLATE = re.compile(
    r"(?i:(?<!vat )\b(?:registration|reg|number plate|licen[cs]e plate|immatriculation|vrm|vehicle|van|car"
    r"|vin)\b(?: (?:mark|no|number"
    r"|plate))?\.?)[ :]{1,2}(?P<value>(?=[A-Z ]*\d)[A-Z\d]{2,4}[ -]?[A-Z\d]{2,3}(?:[ -][A-Z\d]{2})?"
    r"|[A-HJ-NPR-Z\d]{17})(?!\w)"
)
# A number in brackets after a name.
BRACKETED = re.compile(r"[a-z] \((?P<value>[A-Z]{1,3}-?\d{4,8})\)")
GERMAN_PLATE = re.compile(
    r"(?i:kennzeichen|pkw|fahrzeug)\b[^\n.]{0,30}?(?P<value>\b[A-ZÄÖÜ]{1,3}[- ][A-Z]{1,2} ?\d{1,4}[EH]?)\b"
)
DATE_OR_AMOUNT = re.compile(
    r"^\d{1,2}[./-]\d{1,2}[./-]\d{2,4}$|^\d{4}-\d{2}-\d{2}$|^(?:19|20)\d{2}$|^\d{1,3}(?:,\d{3})+$"
)


class LabelRecogniser:
    """Finds values by their labels."""

    def find(self, text: str) -> list[Finding]:
        """Values, without their labels."""
        if not any(map(str.isdigit, text)):
            return []
        findings = [
            Finding(match.start("value"), match.end("value"), kind, 0.96)
            for kind, form in FORMS.items()
            for match in form.finditer(text)
            if _is_number(match["value"], MIN_DIGITS[kind]) and not DATE_OR_AMOUNT.match(match["value"])
        ]
        for kind, form in (
            ("EMPLOYEE_CODE", BRACKETED),
            ("ACCOUNT_NUMBER", SORT_CODE),
            ("ACCOUNT_NUMBER", ACCOUNT_AFTER),
            ("VEHICLE", PLATE),
            ("VEHICLE", GERMAN_PLATE),
        ):
            findings += [Finding(match.start("value"), match.end("value"), kind, 0.96) for match in form.finditer(text)]
        return findings


def _is_number(value: str, least: int) -> bool:
    """True if there are enough digits; mixed with letters, fewer are enough."""
    count = sum(map(str.isdigit, value))
    return count >= least or (count >= MIN_MIXED_DIGITS and len(value) >= 2 * MIN_MIXED_DIGITS and not value.isdigit())
