"""When an operator may override the gate, and the justification that an operator's decision needs."""

from services.registry.domain import Evaluation, Gate
from services.registry.rules.suites import check_memorised
from tailor.errors import FailedPrecondition, InvalidArgument, Reason

MAX_REASON = 1000


def check_override(gate: Gate, evaluation: Evaluation) -> None:
    """Raises FailedPrecondition if the adapter memorised more than the gate allows: that exposes personal data."""
    sentences = [sentence for _, sentence in check_memorised(gate, evaluation)]
    if sentences:
        raise FailedPrecondition(
            Reason.NOT_OVERRIDABLE, f"The limit on memorised texts cannot be overridden: {'. '.join(sentences)}."
        )


def check_reason(reason: str, *, required: bool = True) -> None:
    """Raises InvalidArgument for a reason that is too long, or missing although it is required."""
    if (required and not reason.strip()) or len(reason) > MAX_REASON:
        least = 1 if required else 0
        raise InvalidArgument(
            Reason.INVALID_REASON,
            "The decision stays on record and needs a reason.",
            field_violations={"reason": f"must have {least} to {MAX_REASON:,} characters"},
        )
