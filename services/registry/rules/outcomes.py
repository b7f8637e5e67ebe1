"""Rules of what drafts were worth, and the share of a draft's words that was kept in the final text."""

import math
import re
from collections import defaultdict
from collections.abc import Sequence

from services.registry.domain import Draft
from services.registry.outcome_domain import DraftOutcome
from tailor.errors import InvalidArgument, Reason

WORD = re.compile(r"\w+")
# Comparing takes the product of both lengths, divided by the bits of a machine word.
MAX_WORDS = 50_000
MAX_MINUTES = 100_000
MAX_REQUEST_ID = 128


def check_outcome(outcome: DraftOutcome, request_id: str) -> None:
    """Raises InvalidArgument (INVALID_OUTCOME) with a violation per wrong field."""
    violations: dict[str, str] = {}
    if not math.isfinite(outcome.minutes) or not 0 <= outcome.minutes <= MAX_MINUTES:
        violations["minutes"] = f"must be above 0 and at most {MAX_MINUTES:,}, or 0 for none"
    if not 0 <= outcome.satisfaction <= 5:
        violations["satisfaction"] = "must be 1 to 5, or 0 for none"
    if not violations and not outcome.minutes and not outcome.satisfaction:
        violations["minutes"] = "must be given if there is no satisfaction"
    if len(request_id) > MAX_REQUEST_ID:
        violations["request_id"] = f"must have at most {MAX_REQUEST_ID} characters"
    if not outcome.draft_id:
        if not request_id:
            violations["request_id"] = "must be given without a draft"
        if not outcome.specialist:
            violations["specialist"] = "must be given without a draft"
    _raise_if_any(violations)


def find_specialist_of(outcome: DraftOutcome, draft: Draft | None) -> str:
    """The specialist that an outcome counts for. Raises InvalidArgument (INVALID_OUTCOME) if it does not fit the draft's."""
    answered = draft.specialist if draft else ""
    if answered and outcome.specialist not in ("", answered):
        _raise_if_any({"specialist": "must be the one that wrote the draft, or left out"})
    if not answered and not outcome.specialist:
        _raise_if_any({"specialist": "must be given for a draft of the base"})
    return answered or outcome.specialist


def _raise_if_any(violations: dict[str, str]) -> None:
    if violations:
        raise InvalidArgument(Reason.INVALID_OUTCOME, "The outcome is invalid.", field_violations=violations)


def measure_kept_share(draft: str, final: str) -> float | None:
    """The share of the draft's words that the final text has in the same order, from 0 to 1; None if the draft has no words.

    Case, punctuation and white space do not count. Words beyond the 50,000th of a text are not compared.
    """
    ours, theirs = _split(draft), _split(final)
    return _common_subsequence(ours, theirs) / len(ours) if ours else None


def _split(text: str) -> list[str]:
    return WORD.findall(text.casefold())[:MAX_WORDS]


def _common_subsequence(first: Sequence[str], second: Sequence[str]) -> int:
    """The length of the longest common subsequence, bit-parallel (Hyyrö 2004, Bit-Parallel LCS-length Computation Revisited)."""
    places: dict[str, int] = defaultdict(int)
    for place, word in enumerate(first):
        places[word] |= 1 << place
    all_bits = (1 << len(first)) - 1
    unmatched = all_bits
    for word in second:
        matches = unmatched & places.get(word, 0)
        unmatched = ((unmatched + matches) | (unmatched - matches)) & all_bits
    return len(first) - unmatched.bit_count()
