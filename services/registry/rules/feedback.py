"""Rules of callers' feedback on drafts."""

from dataclasses import replace
from datetime import datetime, timedelta

from services.registry.domain import Feedback, FeedbackVerdict
from tailor.errors import InvalidArgument, Reason

MAX_EDITED_TEXT = 100_000
MAX_COMMENT = 4_000
# As long as the texts of drafts.
TEXT_LIFETIME = timedelta(days=30)


def check_feedback(feedback: Feedback) -> None:
    """Raises InvalidArgument (INVALID_FEEDBACK) with a violation per wrong field."""
    violations: dict[str, str] = {}
    if feedback.verdict is None:
        violations["verdict"] = "must be accepted, edited or rejected"
    if feedback.edited_text and feedback.verdict is not FeedbackVerdict.EDITED:
        violations["edited_text"] = "must be left out unless the verdict is edited"
    elif len(feedback.edited_text) > MAX_EDITED_TEXT:
        violations["edited_text"] = f"must have at most {MAX_EDITED_TEXT:,} characters"
    if not 0 <= feedback.stars <= 5:
        violations["stars"] = "must be 1 to 5, or 0 for none"
    if len(feedback.comment) > MAX_COMMENT:
        violations["comment"] = f"must have at most {MAX_COMMENT:,} characters"
    if violations:
        raise InvalidArgument(Reason.INVALID_FEEDBACK, "The feedback is invalid.", field_violations=violations)


def drop_expired_text(feedback: Feedback, now: datetime) -> Feedback:
    """The feedback without its edited text if that is too old."""
    return replace(feedback, edited_text="") if now - feedback.create_time > TEXT_LIFETIME else feedback
