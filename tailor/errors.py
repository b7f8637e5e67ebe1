"""One base error that carries its canonical code; foreign exceptions are wrapped in it at the edge."""

from collections.abc import Mapping
from enum import Enum
from typing import ClassVar


class Code(Enum):
    """Canonical codes, as gRPC numbers them."""

    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    UNAVAILABLE = 14
    UNAUTHENTICATED = 16


class TailorError(Exception):
    """An error that a caller can act on.

    `reason` is UPPER_SNAKE and stable; `message` says what to do. Neither ever holds a document's text, a personal value or a secret.
    `retryable` says whether the same call may succeed later, unchanged.
    """

    code: ClassVar[Code]
    retryable: ClassVar[bool] = False

    def __init__(
        self,
        reason: str,
        message: str,
        *,
        field_violations: Mapping[str, str] | None = None,
        retry_after_seconds: float | None = None,
        **metadata: str,
    ) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = reason
        self.message = message
        self.field_violations = dict(field_violations or {})
        self.retry_after_seconds = retry_after_seconds
        self.metadata = metadata


class InvalidArgument(TailorError):
    """The request can never work as it is."""

    code = Code.INVALID_ARGUMENT


class NotFound(TailorError):
    """What was named does not exist, or is not the caller's to see."""

    code = Code.NOT_FOUND


class AlreadyExists(TailorError):
    """The name is taken by something else."""

    code = Code.ALREADY_EXISTS


class FailedPrecondition(TailorError):
    """The state does not allow it; something else has to happen first."""

    code = Code.FAILED_PRECONDITION


class PermissionDenied(TailorError):
    """The caller is known, and may not."""

    code = Code.PERMISSION_DENIED


class Unauthenticated(TailorError):
    """The caller is not known."""

    code = Code.UNAUTHENTICATED


class Aborted(TailorError):
    """Somebody else was faster: read again, then decide again."""

    code = Code.ABORTED
    retryable = True


class ResourceExhausted(TailorError):
    """A limit is reached; retry after a while."""

    code = Code.RESOURCE_EXHAUSTED
    retryable = True


class Unavailable(TailorError):
    """A dependency does not answer; retry."""

    code = Code.UNAVAILABLE
    retryable = True


class DeadlineExceeded(TailorError):
    """It took longer than allowed; retry."""

    code = Code.DEADLINE_EXCEEDED
    retryable = True


BY_CODE: dict[Code, type[TailorError]] = {
    error.code: error
    for error in (
        InvalidArgument,
        NotFound,
        AlreadyExists,
        FailedPrecondition,
        PermissionDenied,
        Unauthenticated,
        Aborted,
        ResourceExhausted,
        Unavailable,
        DeadlineExceeded,
    )
}
