"""What all calls to services have in common: how long they may take, and streams that can be ended."""

from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

from tailor.rpc.channel import wire_errors

T_co = TypeVar("T_co", covariant=True)

READ_SECONDS = 4
LIST_SIZE = 200


class RpcStream(Generic[T_co]):
    """A streamed call; closing it cancels the call, which stops the work behind it."""

    def __init__(self, service: str, call: Any, convert: Callable[[Any], T_co]) -> None:
        self._service = service
        self._call = call
        self._convert = convert

    def __iter__(self) -> Iterator[T_co]:
        with wire_errors(self._service):
            for message in self._call:
                yield self._convert(message)

    def close(self) -> None:
        """Cancel the call."""
        self._call.cancel()
