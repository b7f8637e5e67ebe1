"""Reads the messages of calls, and ends calls whose next message does not come.

A call begins with its headers, and gRPC waits for its message without end, in a thread of the server.
"""

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from tailor.errors import InvalidArgument, Reason
from tailor.limits import check_limits

Parse = Callable[[bytes], Any]

TICK_SECONDS = 0.25


class MessageWaits:
    """The calls that wait for a message. `watch` cancels those that wait longer than `patience_seconds`, or, while more than `crowd`
    of them wait, longer than `crowded_seconds`. Thread-safe.
    """

    def __init__(self, patience_seconds: float, *, crowd: int, crowded_seconds: float) -> None:
        self._patience_seconds = patience_seconds
        self._crowd = crowd
        self._crowded_seconds = min(crowded_seconds, patience_seconds)
        self._since: dict[grpc.ServicerContext, float] = {}
        self._lock = threading.Lock()

    def first(self, messages: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
        """The only message of a call.

        Raises InvalidArgument (MALFORMED_REQUEST) if there is none, grpc.RpcError if the call was cancelled.
        """
        try:
            return self._next(messages, context)
        except StopIteration:
            raise InvalidArgument(Reason.MALFORMED_REQUEST, "The call has no message.") from None

    def each(self, messages: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        """Every message of a call. Raises grpc.RpcError if the call was cancelled."""
        while True:
            try:
                message = self._next(messages, context)
            except StopIteration:
                return
            yield message

    def _next(self, messages: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
        with self._lock:
            self._since[context] = time.monotonic()
        try:
            return next(messages)
        finally:
            with self._lock:
                del self._since[context]

    def end_late(self) -> None:
        """Cancel the calls that have waited too long."""
        with self._lock:
            patience = self._crowded_seconds if len(self._since) > self._crowd else self._patience_seconds
            latest = time.monotonic() - patience
            late = [context for context, since in self._since.items() if since <= latest]
        for context in late:
            context.cancel()  # type: ignore[no-untyped-call]


def watch(waits: Iterable[MessageWaits], stop: threading.Event) -> None:
    """End late calls until `stop` is set. Blocks."""
    while not stop.wait(TICK_SECONDS):
        for some in waits:
            some.end_late()


def parse(deserialize: Parse, data: bytes) -> Any:
    """Parse a request. Raises InvalidArgument: MALFORMED_REQUEST, or FIELD_TOO_LONG by `tailor/limits.py`."""
    try:
        request = deserialize(data)
    except DecodeError:
        raise InvalidArgument(
            Reason.MALFORMED_REQUEST, "The request is not a valid protobuf message of this method."
        ) from None
    check_limits(request)
    return request
