"""The calls that need no credentials: health and reflection. They have threads of their own, so that they take none from others."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import grpc
from grpc_status import rpc_status

from tailor.errors import Reason, ResourceExhausted, TailorError
from tailor.rpc.messages import MessageWaits, Parse, parse
from tailor.rpc.status import to_status

RETRY_SECONDS = 1.0


class ConcurrencyLimiter:
    """Counts open calls by holder, such as a key or a connection. Thread-safe."""

    def __init__(self, per_holder: int, total: int) -> None:
        self._per_holder = per_holder
        self._total = total
        self._open: dict[str, int] = {}
        self._count = 0
        self._lock = threading.Lock()

    def take(self, holder: str) -> None:
        """Count one more call. Raises ResourceExhausted (TOO_MANY_CALLS) if the holder, or all together, have too many open."""
        with self._lock:
            held = self._open.get(holder, 0)
            if held < self._per_holder and self._count < self._total:
                self._open[holder] = held + 1
                self._count += 1
                return
        raise ResourceExhausted(
            Reason.TOO_MANY_CALLS,
            f"At most {self._per_holder} calls may be open at once. Wait for the answers of some.",
            retry_after_seconds=RETRY_SECONDS,
        )

    def free(self, holder: str) -> None:
        """Give back what `take` counted."""
        with self._lock:
            self._count -= 1
            held = self._open.pop(holder) - 1
            if held:
                self._open[holder] = held


SERVICES = ("/grpc.health.v1.Health/", "/grpc.reflection.")

THREADS = 64
# Open calls, most of them streams of Health.Watch, which hold no thread.
MAX_CALLS, MAX_CALLS_PER_CONNECTION = 1_000, 10
MESSAGE_SECONDS, CROWDED_SECONDS = 2.0, 0.25


class OpenCalls:
    """Wraps the handlers of SERVICES. `waits` has the calls whose message has not come."""

    def __init__(self, name: str) -> None:
        self.waits = MessageWaits(MESSAGE_SECONDS, crowd=THREADS // 4, crowded_seconds=CROWDED_SECONDS)
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix=f"{name}-open-rpc")
        self._places = ConcurrencyLimiter(MAX_CALLS_PER_CONNECTION, MAX_CALLS)

    def wrap(self, handler: Any) -> Any:
        """The same handler with limits. It reads the message itself, because gRPC would wait for it without end."""
        deserialize: Parse = handler.request_deserializer
        if handler.unary_unary:
            make, behaviour = grpc.stream_unary_rpc_method_handler, self._read_one(handler.unary_unary, deserialize)
        elif handler.unary_stream:
            make, behaviour = grpc.stream_stream_rpc_method_handler, self._read_one(handler.unary_stream, deserialize)
        else:
            make, behaviour = grpc.stream_stream_rpc_method_handler, self._read_all(handler.stream_stream, deserialize)
        # gRPC's own switches, which its health service uses: other threads, and answers by callback, without holding a thread.
        behaviour.experimental_thread_pool = self._threads  # type: ignore[attr-defined]
        inner = handler.unary_unary or handler.unary_stream or handler.stream_stream
        behaviour.experimental_non_blocking = getattr(inner, "experimental_non_blocking", False)  # type: ignore[attr-defined]
        return make(behaviour, None, handler.response_serializer)

    def _read_one(self, inner: Callable[..., Any], deserialize: Parse) -> Callable[..., Any]:
        def behaviour(messages: Iterator[bytes], context: Any, *send: Any) -> Any:
            try:
                self._enter(context)
                request = parse(deserialize, self.waits.first(messages, context))
            except TailorError as error:
                context.abort_with_status(rpc_status.to_status(to_status(error)))
            return inner(request, context, *send)

        return behaviour

    def _read_all(self, inner: Callable[..., Any], deserialize: Parse) -> Callable[..., Any]:
        def behaviour(messages: Iterator[bytes], context: Any) -> Iterator[Any]:
            try:
                self._enter(context)
                yield from inner(map(partial(parse, deserialize), self.waits.each(messages, context)), context)
            except TailorError as error:
                context.abort_with_status(rpc_status.to_status(to_status(error)))

        return behaviour

    def _enter(self, context: Any) -> None:
        """Count the call for its connection until it ends."""
        connection = context.peer()
        self._places.take(connection)
        if not context.add_callback(partial(self._places.free, connection)):
            self._places.free(connection)
