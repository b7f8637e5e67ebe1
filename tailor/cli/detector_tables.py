"""The table of a downloaded model in a detectors file: its labels as types of personal values, its licence, its digest."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tailor.errors import InvalidArgument, Reason

GLINER, TRANSFORMERS = "gliner", "transformers"
# What GLiNER is asked for, which reads any label, and the type of each.
GLINER_LABELS = {
    "person": "PERSON", "organization": "CLIENT", "address": "ADDRESS", "phone number": "PHONE_NUMBER", "email": "EMAIL_ADDRESS",
    "date of birth": "DATE_OF_BIRTH", "credit card number": "CREDIT_CARD", "iban": "IBAN", "bank account number": "ACCOUNT_NUMBER",
    "passport number": "NATIONAL_ID", "social security number": "NATIONAL_ID", "tax identification number": "NATIONAL_ID",
    "driver's license number": "NATIONAL_ID", "username": "USERNAME", "ip address": "IP_ADDRESS", "license plate number": "VEHICLE",
    "medical condition": "HEALTH",
}  # fmt: skip
# Labels of token classifiers without `B-`, small letters and signs.
KNOWN_LABELS = {
    "per": "PERSON", "person": "PERSON", "name": "PERSON", "givenname": "PERSON", "firstname": "PERSON", "middlename": "PERSON",
    "surname": "PERSON", "lastname": "PERSON", "privateperson": "PERSON",
    "org": "CLIENT", "organization": "CLIENT", "organisation": "CLIENT", "company": "CLIENT", "companyname": "CLIENT",
    "address": "ADDRESS", "street": "ADDRESS", "streetaddress": "ADDRESS", "buildingnum": "ADDRESS", "privateaddress": "ADDRESS",
    "zipcode": "POSTCODE", "postcode": "POSTCODE",
    "email": "EMAIL_ADDRESS", "emailaddress": "EMAIL_ADDRESS", "privateemail": "EMAIL_ADDRESS",
    "phone": "PHONE_NUMBER", "phonenumber": "PHONE_NUMBER", "telephonenum": "PHONE_NUMBER", "telephone": "PHONE_NUMBER",
    "dateofbirth": "DATE_OF_BIRTH", "dob": "DATE_OF_BIRTH",
    "iban": "IBAN", "accountnum": "ACCOUNT_NUMBER", "accountnumber": "ACCOUNT_NUMBER",
    "creditcard": "CREDIT_CARD", "creditcardnumber": "CREDIT_CARD",
    "ssn": "NATIONAL_ID", "socialnum": "NATIONAL_ID", "idcardnum": "NATIONAL_ID",
    "passport": "NATIONAL_ID", "passportnum": "NATIONAL_ID", "driverlicensenum": "NATIONAL_ID", "driverslicense": "NATIONAL_ID",
    "taxnum": "NATIONAL_ID", "username": "USERNAME", "password": "SECRET", "ip": "IP_ADDRESS", "ipaddress": "IP_ADDRESS",
}  # fmt: skip
TYPE = re.compile(r"[A-Z][A-Z0-9_]{1,39}")
# Terms that exclude companies, and those that say nothing: they must be accepted by name.
NON_COMMERCIAL = re.compile(r"(?:^|[^a-z])nc(?:[^a-z]|$)|non-?commercial|research|academic", re.IGNORECASE)
UNCLEAR = ("unknown", "other", "")


def must_be_accepted(licence: str) -> bool:
    """True for a licence that excludes commercial use, and for none that is known."""
    return licence in UNCLEAR or NON_COMMERCIAL.search(licence) is not None


def find_kind(folder: Path) -> str:
    """`gliner` or `transformers`, by the model's files. Raises InvalidArgument (INVALID_MODEL) for another kind of model."""
    if (folder / "gliner_config.json").is_file():
        return GLINER
    architectures = _config(folder).get("architectures")
    if isinstance(architectures, list) and any(str(name).endswith("ForTokenClassification") for name in architectures):
        return TRANSFORMERS
    raise InvalidArgument(
        Reason.INVALID_MODEL,
        "The model must be a GLiNER model or a token classifier (`...ForTokenClassification` in config.json).",
    )


def find_labels(folder: Path, kind: str, given: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """The types by the model's labels, and the labels without a type. `given` are `LABEL=TYPE`, which come first.

    Raises InvalidArgument (INVALID_DETECTORS) if one of them is malformed, or if no label has a type.
    """
    labels = dict(map(_parse, given))
    names = list(GLINER_LABELS) if kind == GLINER else _own_labels(folder)
    known = GLINER_LABELS if kind == GLINER else KNOWN_LABELS
    for name in names:
        key = name if kind == GLINER else re.sub(r"[^a-z]", "", name.lower())
        if key in known:
            labels.setdefault(name, known[key])
    unused = [name for name in names if name not in labels]
    if not labels:
        shown = ", ".join(unused[:20]) or "none"
        raise InvalidArgument(
            Reason.INVALID_DETECTORS,
            f"Name the type of at least one label by --label LABEL=TYPE. The model has: {shown}.",
        )
    return labels, unused


def table(name: str, kind: str, model: tuple[Path, str], labels: Mapping[str, str], languages: Sequence[str]) -> str:
    """The `[[detectors]]` table as TOML. `model` is a folder and its digest."""
    folder, digest = model
    lines = [
        "[[detectors]]",
        f"name = {json.dumps(name)}",
        f"kind = {json.dumps(kind)}",
        f"languages = {json.dumps(list(languages))}",
        f"model = {json.dumps(str(folder), ensure_ascii=False)}",
        f"sha256 = {json.dumps(digest)}",
        "default_threshold = 0.5",
        "[detectors.labels]",
        *(f"{json.dumps(label)} = {json.dumps(kind)}" for label, kind in labels.items()),
    ]
    return "\n".join(lines) + "\n"


def _parse(item: str) -> tuple[str, str]:
    label, mark, kind = item.partition("=")
    if not mark or not label.strip() or not TYPE.fullmatch(kind):
        raise InvalidArgument(Reason.INVALID_DETECTORS, "--label must be LABEL=TYPE, such as ORG=CLIENT.")
    return label.strip(), kind


def _own_labels(folder: Path) -> list[str]:
    """The labels in the configuration, without the marks of beginning and inside."""
    named = _config(folder).get("id2label")
    labels = named.values() if isinstance(named, dict) else ()
    return list(dict.fromkeys(re.sub(r"^[BIESLU]-", "", str(label)) for label in labels if str(label) != "O"))


def _config(folder: Path) -> dict[str, Any]:
    try:
        content = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
