"""Translate errors to `google.rpc.Status` with `ErrorInfo`, and back."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from tailor.errors import BY_CODE, Code, Reason, TailorError, Unavailable

DOMAIN = "tailor"
# Parts of grpcio's details of a call that was cancelled in this process.
CANCELLED_HERE = ("Locally cancelled", "Channel closed")


def to_status(error: TailorError) -> status_pb2.Status:
    """Convert an error to a status with ErrorInfo, and BadRequest and RetryInfo if they apply."""
    details = [_pack(error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=error.metadata))]
    if error.field_violations:
        violations = [
            error_details_pb2.BadRequest.FieldViolation(field=name, description=text)
            for name, text in error.field_violations.items()
        ]
        details.append(_pack(error_details_pb2.BadRequest(field_violations=violations)))
    if error.retry_after_seconds is not None:
        delay = duration_pb2.Duration(
            nanos=int(error.retry_after_seconds % 1 * 1e9), seconds=int(error.retry_after_seconds)
        )
        details.append(_pack(error_details_pb2.RetryInfo(retry_delay=delay)))
    return status_pb2.Status(code=error.code.value, message=error.message, details=details)


def internal() -> status_pb2.Status:
    """The status of an unexpected error. It tells the caller nothing about the cause."""
    info = error_details_pb2.ErrorInfo(reason=Reason.INTERNAL, domain=DOMAIN)
    return status_pb2.Status(
        code=code_pb2.INTERNAL,
        message="The service failed unexpectedly; its log has the details.",
        details=[_pack(info)],
    )


def from_rpc_error(error: grpc.RpcError, service: str) -> TailorError:
    """Convert a call's error to the TailorError that the service raised; Unavailable if it did not answer."""
    call = cast(grpc.Call, error) if isinstance(error, grpc.Call | grpc.aio.AioRpcError) else None
    code = call.code() if call else grpc.StatusCode.UNAVAILABLE
    status = rpc_status.from_call(call) if call else None
    if call and _is_cancelled_there(call):
        # grpcio answers so to calls that arrive while the server begins to stop. Another replica can take them.
        return Unavailable(Reason.UNAVAILABLE, f"{service} stopped before it began the call.")
    number = code.value[0]
    if number not in {known.value for known in Code}:
        return Unavailable(Reason.SERVICE_FAILED, f"{service} answered {code.name}.")
    reason, retry = Reason(code.name), None
    metadata: dict[str, str] = {}
    violations: dict[str, str] = {}
    details: list[any_pb2.Any] = list(status.details) if status else []
    for detail in details:
        info, bad, wait = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
        if detail.Unpack(info):
            reason, metadata = Reason(info.reason), dict(info.metadata)
        elif detail.Unpack(bad):
            violations = {violation.field: violation.description for violation in bad.field_violations}
        elif detail.Unpack(wait):
            retry = wait.retry_delay.seconds + wait.retry_delay.nanos / 1e9
    message = status.message if status else f"{service} does not answer."
    if number == Code.UNIMPLEMENTED.value:
        message = f"{service} does not have this call; it may be of another version. Update it."
    return BY_CODE[Code(number)](reason, message, field_violations=violations, retry_after_seconds=retry, **metadata)


def _is_cancelled_there(call: grpc.Call) -> bool:
    details = str(call.details() or "")
    return call.code() is grpc.StatusCode.CANCELLED and not any(words in details for words in CANCELLED_HERE)


@contextmanager
def wire_errors(service: str) -> Iterator[None]:
    """Raise a call's grpc.RpcError as the TailorError that it carries."""
    try:
        yield
    except grpc.RpcError as error:
        raise from_rpc_error(error, service) from None


def _pack(message: Message) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed
