"""Which filters a specialist may set. Synthetic applies them."""

import re

from tailor.values import Filters

LANGUAGE = re.compile(r"[a-z]{2}")
MIN_REPETITIONS = 2
MAX_PERCENT = 100
COUNTS = (
    "min_chars",
    "max_chars",
    "boilerplate_documents",
    "max_source_documents",
    "max_source_percent",
    "max_pairs_per_judgement",
)


def find_filter_violations(filters: Filters) -> dict[str, str]:
    """Violations by field; empty for valid filters."""
    violations = {f"filters.{name}": "must be 0 (no limit) or more" for name in COUNTS if getattr(filters, name) < 0}
    for index, language in enumerate(filters.languages):
        if not LANGUAGE.fullmatch(language):
            violations[f"filters.languages[{index}]"] = "must be a two-letter code of ISO 639-1, such as 'en'"
    if 0 < filters.max_chars < filters.min_chars:
        violations["filters.max_chars"] = "must not be less than min_chars"
    if 0 < filters.boilerplate_documents < MIN_REPETITIONS:
        violations["filters.boilerplate_documents"] = f"must be 0, or at least {MIN_REPETITIONS}"
    if filters.max_source_percent > MAX_PERCENT:
        violations["filters.max_source_percent"] = f"must be at most {MAX_PERCENT}"
    return violations
