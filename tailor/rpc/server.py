"""The gRPC server of every service. One interceptor authenticates, limits, times, logs and translates errors."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from typing import Any

import grpc
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import MethodDescriptor
from grpc_health.v1 import health, health_pb2_grpc
from grpc_status import rpc_status

from tailor.errors import TailorError
from tailor.logging import get_logger, place
from tailor.rpc import public_methods
from tailor.rpc.auth import Authenticator, check_caller, set_caller
from tailor.rpc.certificates import CertificateFiles, server_credentials
from tailor.rpc.health import NamedHealth
from tailor.rpc.messages import MessageWaits, parse, watch
from tailor.rpc.public_methods import ConcurrencyLimiter, OpenCalls
from tailor.rpc.status import internal, to_status
from tailor.settings import ServiceSettings
from tailor.telemetry import count_call

log = get_logger(__name__)

# A call needs a thread while its message is on its way; of this number of calls, one computes.
THREADS_PER_WORKER = 4
# While more than half of the threads wait for messages, a call whose message takes longer ends.
CROWDED_SECONDS = 1.0
HANDSHAKE_SECONDS = 10
# Calls of one connection that gRPC itself admits.
MAX_STREAMS = 1_000

# The messages of a call, as they come, and its context to its answer or answers.
Answer = Callable[[Iterator[bytes], grpc.ServicerContext], Any]


class RpcServer:
    """Serves the given servicers. Health is NOT_SERVING until `set_serving`. `set_known` adds names with their own health.

    A call without valid credentials ends before its message is read. One caller may have three quarters of the calls open, or as many
    as the settings allow, and a call whose message does not come is cancelled.
    """

    def __init__(
        self,
        settings: ServiceSettings,
        name: str,
        *,
        servicers: Sequence[tuple[Callable[[Any, Any], None], Any]],
        authenticator: Authenticator,
        max_workers: int = 32,
    ) -> None:
        self._health = NamedHealth(lambda metadata, name: authenticator.authenticate(_bearer(metadata)).may_use(name))
        calls = max_workers * THREADS_PER_WORKER
        places = ConcurrencyLimiter(settings.rpc_max_calls_per_caller or calls * 3 // 4, calls)
        waits = MessageWaits(settings.rpc_message_seconds, crowd=calls // 2, crowded_seconds=CROWDED_SECONDS)
        visitors = OpenCalls(name)
        self._stopped = threading.Event()
        self._watch = threading.Thread(
            target=watch, args=((waits, visitors.waits), self._stopped), name=f"{name}-rpc-messages", daemon=True
        )
        self._server = grpc.server(
            ThreadPoolExecutor(max_workers=calls, thread_name_prefix=f"{name}-rpc"),
            interceptors=[CallInterceptor(authenticator, places, waits, visitors)],
            options=_options(settings, calls),
            maximum_concurrent_rpcs=calls + public_methods.THREADS,
        )
        for add, servicer in servicers:
            add(servicer, self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        if settings.rpc_reflection:
            _add_reflection(self._server, servicers)
        self.port = _bind(self._server, settings)

    def start(self) -> None:
        self._server.start()
        self._watch.start()

    def stop(self, grace: float) -> None:
        """Stop accepting calls. Blocks for up to `grace` seconds until the running ones have ended, then cancels them."""
        self._server.stop(grace).wait()
        self._stopped.set()

    def set_serving(self, serving: bool) -> None:
        """Set the overall health."""
        self._health.set_serving(serving)

    def set_known(self, name: str, known: bool) -> None:
        """Add or remove a name that is served here, such as a specialist's."""
        self._health.set_known(name, known)


def _options(settings: ServiceSettings, calls: int) -> list[tuple[str, int]]:
    return [
        ("grpc.max_receive_message_length", settings.rpc_max_message_bytes),
        ("grpc.so_reuseport", 0),
        # A watched run may send nothing for minutes, and the watcher pings every 30 s.
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        # gRPC's clients do not queue calls over this limit, they see some of them fail: it is a wall far behind the limit per caller.
        ("grpc.max_concurrent_streams", max(MAX_STREAMS, 2 * calls)),
        ("grpc.max_allowed_incoming_connections", settings.rpc_max_connections),
        ("grpc.server_handshake_timeout_ms", HANDSHAKE_SECONDS * 1000),
        ("grpc.max_connection_idle_ms", int(settings.rpc_connection_idle_seconds * 1000)),
        # Running calls of an old connection go on; new ones take a new connection.
        ("grpc.max_connection_age_ms", int(settings.rpc_connection_age_seconds * 1000)),
    ]


def _bind(server: grpc.Server, settings: ServiceSettings) -> int:
    address = f"{settings.rpc_host}:{settings.rpc_port}"
    if settings.tls_certificate_file and settings.tls_key_file:
        files = CertificateFiles(settings.tls_certificate_file, settings.tls_key_file, settings.tls_client_ca_file)
        return server.add_secure_port(address, server_credentials(files))
    return server.add_insecure_port(address)


def _add_reflection(server: grpc.Server, servicers: Iterable[tuple[Callable[[Any, Any], None], Any]]) -> None:
    from grpc_reflection.v1alpha import reflection

    names = [handler for add, _ in servicers for handler in _service_names(add)]
    reflection.enable_server_reflection([*names, health.SERVICE_NAME, reflection.SERVICE_NAME], server)


def _service_names(add: Callable[[Any, Any], None]) -> list[str]:
    pool = descriptor_pool.Default()
    name = add.__name__.removeprefix("add_").removesuffix("Servicer_to_server")
    package = add.__module__.rpartition(".")[0]
    return [pool.FindServiceByName(f"{package}.{name}").full_name]


def _descriptor(method: str) -> MethodDescriptor:
    service, _, name = method.lstrip("/").partition("/")
    descriptor: MethodDescriptor = descriptor_pool.Default().FindServiceByName(service).methods_by_name[name]
    return descriptor


class CallInterceptor(grpc.ServerInterceptor):  # type: ignore[type-arg]
    """Authenticates, limits, times and translates every call, except those of health and reflection, which `visitors` limits.

    gRPC gives each call a thread before its message has come. Every handler is given to it as one of streamed requests, so that the
    thread begins with authentication, and waits for the message by `waits`.
    """

    def __init__(
        self, authenticator: Authenticator, places: ConcurrencyLimiter, waits: MessageWaits, visitors: OpenCalls
    ) -> None:
        self._authenticator = authenticator
        self._places = places
        self._waits = waits
        self._visitors = visitors
        self._handlers: dict[str, Any] = {}

    def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        method = handler_call_details.method
        handler = self._handlers.get(method)
        if handler is None:
            inner = continuation(handler_call_details)
            # Unknown methods are not kept.
            handler = None if inner is None else self._handlers.setdefault(method, self._wrap(method, inner))
        return handler

    def _wrap(self, method: str, handler: Any) -> Any:
        if method.startswith(public_methods.SERVICES):
            return self._visitors.wrap(handler)
        answer = self._answer(handler)
        if handler.response_streaming:
            stream = self._wrap_stream(answer, _descriptor(method))
            return grpc.stream_stream_rpc_method_handler(stream, None, handler.response_serializer)
        single = self._wrap_single(answer, _descriptor(method))
        return grpc.stream_unary_rpc_method_handler(single, None, handler.response_serializer)

    def _answer(self, handler: Any) -> Answer:
        """Read and parse the request, and answer it. Bytes that do not parse are reported as the caller's mistake."""
        inner = handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
        parse_message = partial(parse, handler.request_deserializer)
        if handler.request_streaming:
            return lambda messages, context: inner(map(parse_message, self._waits.each(messages, context)), context)
        return lambda messages, context: inner(parse_message(self._waits.first(messages, context)), context)

    def _admit(self, descriptor: MethodDescriptor, token: str) -> str:
        """Identify the caller, and count the call. Returns the holder of the place to free when the call ends."""
        caller = self._authenticator.authenticate(token)
        self._authenticator.admit(caller, descriptor)
        holder = caller.key_id or caller.name
        self._places.take(holder)
        set_caller(caller, partial(self._authenticator.still_admits, caller, token))
        return holder

    def _wrap_single(self, answer: Answer, descriptor: MethodDescriptor) -> Any:
        def behaviour(messages: Iterator[bytes], context: grpc.ServicerContext) -> Any:
            with _Call(descriptor, context):
                holder = self._admit(descriptor, _bearer(context.invocation_metadata()))
                try:
                    return answer(messages, context)
                finally:
                    self._places.free(holder)

        return behaviour

    def _wrap_stream(self, answer: Answer, descriptor: MethodDescriptor) -> Any:
        def behaviour(messages: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[Any]:
            with _Call(descriptor, context):
                holder = self._admit(descriptor, _bearer(context.invocation_metadata()))
                try:
                    with closing(answer(messages, context)) as answers:
                        for message in answers:
                            check_caller()
                            yield message
                finally:
                    self._places.free(holder)

        return behaviour


class _Call:
    """Times a call and turns its exception into a status."""

    def __init__(self, descriptor: MethodDescriptor, context: grpc.ServicerContext) -> None:
        self._method = descriptor.full_name
        self._context = context
        self._started = time.monotonic()

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: Any) -> None:
        code = error.code.name if isinstance(error, TailorError) else "OK" if error is None else "INTERNAL"
        # The caller went away, or its message did not come.
        is_cancelled = isinstance(error, grpc.RpcError) and not self._context.is_active()
        if isinstance(error, GeneratorExit) or is_cancelled:
            code = "CANCELLED"
        count_call(self._method, code, time.monotonic() - self._started)
        if error is None or isinstance(error, GeneratorExit) or is_cancelled:
            return
        if isinstance(error, TailorError):
            log.info("call refused", method=self._method, code=code, reason=error.reason)
            self._context.abort_with_status(rpc_status.to_status(to_status(error)))
        if self._context.code() is None and isinstance(error, Exception):  # type: ignore[attr-defined]
            log.error("call failed", method=self._method, error=type(error).__name__, at=place(error))
            self._context.abort_with_status(rpc_status.to_status(internal()))


def _bearer(metadata: Iterable[tuple[str, str | bytes]]) -> str:
    values = [value for name, value in metadata if name == "authorization"]
    if not values:
        return ""
    scheme, _, token = str(values[0]).partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""
