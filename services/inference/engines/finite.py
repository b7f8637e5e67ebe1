"""The error for a model whose numbers overflow."""

from tailor.errors import FailedPrecondition, Reason


def not_finite() -> FailedPrecondition:
    """The error for logits that are infinite or NaN."""
    return FailedPrecondition(
        Reason.LOGITS_NOT_FINITE,
        "The model's numbers overflow on this text, so it has no answer. Roll back to an earlier adapter.",
    )
