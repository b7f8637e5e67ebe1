"""A specialist's filters: which of the selected documents make rows. Synthetic applies them; what they may say is decided here."""

import re
from dataclasses import dataclass

LANGUAGE = re.compile(r"[a-z]{2}")
LEAST_REPEATED = 2
ALL_PERCENT = 100
COUNTS = (
    "min_chars",
    "max_chars",
    "boilerplate_documents",
    "max_source_documents",
    "max_source_percent",
    "max_pairs_per_judgement",
)


@dataclass(frozen=True)
class Filters:
    """0 and an empty tuple admit everything."""

    languages: tuple[str, ...] = ()
    min_chars: int = 0
    max_chars: int = 0
    boilerplate_documents: int = 0
    max_source_documents: int = 0
    max_source_percent: int = 0
    max_pairs_per_judgement: int = 0


def violations(filters: Filters) -> dict[str, str]:
    """What is wrong, by field; empty where nothing is."""
    wrong = {f"filters.{name}": "0 or more; 0 for any." for name in COUNTS if getattr(filters, name) < 0}
    for index, code in enumerate(filters.languages):
        if not LANGUAGE.fullmatch(code):
            wrong[f"filters.languages[{index}]"] = "A two-letter code of ISO 639-1, such as 'en'."
    if 0 < filters.max_chars < filters.min_chars:
        wrong["filters.max_chars"] = "No less than min_chars."
    if 0 < filters.boilerplate_documents < LEAST_REPEATED:
        wrong["filters.boilerplate_documents"] = (
            f"0, or {LEAST_REPEATED} or more: what one document holds is not repeated."
        )
    if filters.max_source_percent > ALL_PERCENT:
        wrong["filters.max_source_percent"] = f"At most {ALL_PERCENT}."
    return wrong
