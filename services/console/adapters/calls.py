"""Calls of services over gRPC: each has a deadline, and every failure is a TailorError."""

from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

from services.console.ports import CloseableStream
from tailor.rpc.channel import wire_errors

T_co = TypeVar("T_co", covariant=True)

READ_SECONDS = 4
COUNT_SECONDS = 15
WRITE_SECONDS = 30  # anonymization processes a judgement's comment first
LIST_SIZE = 200


def call(service: str, method: Callable[..., T_co], request: Any, seconds: float = READ_SECONDS) -> T_co:
    with wire_errors(service):
        return method(request, timeout=seconds)


class RpcStream(CloseableStream[T_co], Generic[T_co]):
    """A streamed call; closing it cancels the call, which stops the service's work on it."""

    def __init__(self, service: str, stream: Any) -> None:
        self._service = service
        self._stream = stream

    def __iter__(self) -> Iterator[T_co]:
        with wire_errors(self._service):
            yield from self._stream

    def close(self) -> None:
        self._stream.cancel()
