"""Quasi-identifiers that a policy leaves in a text, and their combinations: who shares a combination with few others can be singled out."""

import hashlib
import hmac
import re
import tomllib
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from services.anonymization.review.domain import Combination, PassageStretch, overlaps, passage_at
from services.anonymization.surrogates import generalisation

WORDS_FILE = Path(__file__).with_name("quasi_identifiers.toml")
PARAGRAPH = re.compile(r"\S(?:.|\n(?!\s*\n))*")
BIRTH_YEAR = re.compile(
    r"\b(?:born|geboren|née?|nacid[oa]|nat[oa])\b[^.\n]{0,40}?\b(?P<value>(?:19|20)\d\d)\b", re.IGNORECASE
)
CAPITALISED = re.compile(r"(?<![\w-])[^\W\d_a-z][\w-]*\w")
# Types of coarser values that still help to single a person out.
COARSE_TYPES = ("DATE_OF_BIRTH", "ADDRESS", "AGE", "LOCATION", "NRP")
MIN_TYPES = 2
MAX_COMBINATIONS = 200
IsPlace = Callable[[str], bool]


class ListedQuasiIdentifiers:
    """Finds what may single a person out together with other such values.

    Job titles and nationalities are from lists, places by `is_place`, ages and years of birth by their form.
    """

    def __init__(self, is_place: IsPlace) -> None:
        words = tomllib.loads(WORDS_FILE.read_text(encoding="utf-8"))
        self._is_place = is_place
        self._forms = {
            "JOB_TITLE": re.compile(rf"(?<!\w)(?P<value>(?:{'|'.join(words['job_titles'])}))(?!\w)", re.IGNORECASE),
            "NRP": re.compile(rf"(?<!\w)(?P<value>(?:{'|'.join(words['nationalities'])}))(?!\w)"),
            "DATE_OF_BIRTH": BIRTH_YEAR,
        }

    def __call__(self, text: str, replaced: Sequence[PassageStretch]) -> list[PassageStretch]:
        """Stretches with their types. Those `replaced` have a type only if they were made coarser."""
        mentions = [item for item in replaced if item.entity_type in COARSE_TYPES]
        plain = [
            PassageStretch(match.start("value"), match.end("value"), entity_type=kind)
            for kind, form in self._forms.items()
            for match in form.finditer(text)
        ]
        plain += [PassageStretch(age.start, age.end, entity_type="AGE") for age in generalisation.find(text, {"AGE"})]
        plain += [
            PassageStretch(match.start(), match.end(), entity_type="LOCATION")
            for match in CAPITALISED.finditer(text)
            if self._is_place(match[0])
        ]
        # A surrogate, such as that of an address, singles nobody out.
        mentions += [item for item in plain if not overlaps(item, replaced)]
        return sorted(mentions, key=lambda item: item.start)


def combine(text: str, stretches: Iterable[PassageStretch], passages: int, key: bytes) -> list[Combination]:
    """The combination of each paragraph that has quasi-identifiers of two types or more: all their values, by a keyed hash."""
    ordered = sorted(stretches, key=lambda item: item.start)
    combinations: dict[str, Combination] = {}
    for paragraph in PARAGRAPH.finditer(text):
        values: dict[str, set[str]] = defaultdict(set)
        inside = [item for item in ordered if paragraph.start() <= item.start < paragraph.end()]
        for item in inside:
            values[item.entity_type].add(" ".join(text[item.start : item.end].casefold().split()))
        if len(values) >= MIN_TYPES:
            content = "\n".join(f"{kind}={','.join(sorted(values[kind]))}" for kind in sorted(values))
            digest = hmac.digest(key, content.encode(), hashlib.sha256).hex()
            number = passage_at(text, inside[0].start, passages)
            combinations.setdefault(digest, Combination(number, digest, tuple(sorted(values))))
    return list(combinations.values())[:MAX_COMBINATIONS]
