"""Rules of what drafts were worth."""

import math

from services.registry.domain import Draft
from services.registry.outcome_domain import DraftOutcome
from tailor.errors import InvalidArgument, Reason

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
