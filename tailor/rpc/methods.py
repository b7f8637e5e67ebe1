"""The methods of all services, by full and short name."""

import importlib
import pkgutil
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import grpc
from google.protobuf.descriptor import MethodDescriptor
from grpc_status import rpc_status

import tailor.api
from tailor.api.common.v1 import common_pb2
from tailor.errors import InvalidArgument, Reason, ResourceExhausted, TailorError
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


def full_name(method: MethodDescriptor) -> str:
    """The name on the wire, such as `tailor.api.inference.v1.InferenceService/Generate`."""
    return f"{method.containing_service.full_name}/{method.name}"


def all_methods() -> list[MethodDescriptor]:
    """List every method of every service."""
    modules = [
        info.name for info in pkgutil.walk_packages(tailor.api.__path__, "tailor.api.") if info.name.endswith("_pb2")
    ]
    files = [importlib.import_module(name).DESCRIPTOR for name in modules]
    return [method for file in files for service in file.services_by_name.values() for method in service.methods]


def named_methods(names: Sequence[str], role: int) -> tuple[str, ...]:
    """Expand full or short names to the full names of the methods that a role may call.

    Raises InvalidArgument (INVALID_KEY) for a name that matches no method of the role.
    """
    expanded: set[str] = set()
    for name in names:
        matches = [method for method in all_methods() if name.removeprefix("/") in {method.name, full_name(method)}]
        admitted = {full_name(method) for method in matches if _admits(method, role)}
        if not admitted:
            problem = f"{name}: {'The role may not call this method.' if matches else 'There is no such method.'}"
            raise InvalidArgument(Reason.INVALID_KEY, problem, field_violations={"methods": problem})
        expanded |= admitted
    return tuple(sorted(expanded))


def _admits(method: MethodDescriptor, role: int) -> bool:
    access = method.GetOptions().Extensions[common_pb2.access]
    return access.any_authenticated or any(admitted == role for admitted in access.roles)
