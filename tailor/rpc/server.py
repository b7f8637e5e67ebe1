"""The gRPC server of every service. One interceptor authenticates, times, logs and translates errors."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from typing import Any

import grpc
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import DecodeError
from grpc_health.v1 import health, health_pb2_grpc
from grpc_status import rpc_status

from tailor.errors import InvalidArgument, Reason, TailorError
from tailor.limits import check_limits
from tailor.logging import get_logger, place
from tailor.rpc.auth import Authenticator, Caller, set_caller
from tailor.rpc.health import NamedHealth
from tailor.rpc.status import internal, to_status
from tailor.settings import ServiceSettings
from tailor.telemetry import CALL_SECONDS, CALLS

log = get_logger(__name__)

Parse = Callable[[Any], Any]  # bytes, or an iterator of bytes, to messages

# By (request_streaming, response_streaming).
MAKE_HANDLER: dict[tuple[bool, bool], Callable[..., Any]] = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}

OPEN_SERVICES = ("/grpc.health.v1.Health/", "/grpc.reflection.")


class RpcServer:
    """Serves the given servicers. Health is NOT_SERVING until `set_serving`. `set_known` adds names with their own health."""

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
        options = [
            ("grpc.max_receive_message_length", settings.rpc_max_message_bytes),
            ("grpc.so_reuseport", 0),
            # A watched run may send nothing for minutes, and the watcher pings every 30 s.
            ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
            *_connection_age(settings),
        ]
        self._server = grpc.server(
            ThreadPoolExecutor(max_workers=max_workers, thread_name_prefix=f"{name}-rpc"),
            interceptors=[CallInterceptor(authenticator)],
            options=options,
            maximum_concurrent_rpcs=max_workers * 4,
        )
        for add, servicer in servicers:
            add(servicer, self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        if settings.rpc_reflection:
            _add_reflection(self._server, servicers)
        self.port = _bind(self._server, settings)

    def start(self) -> None:
        self._server.start()

    def stop(self, grace: float) -> None:
        """Stop accepting calls. Blocks for up to `grace` seconds until the running ones have ended, then cancels them."""
        self._server.stop(grace).wait()

    def set_serving(self, serving: bool) -> None:
        """Set the overall health."""
        self._health.set_serving(serving)

    def set_known(self, name: str, known: bool) -> None:
        """Add or remove a name that is served here, such as a specialist's."""
        self._health.set_known(name, known)


def _connection_age(settings: ServiceSettings) -> list[tuple[str, int]]:
    """Without a grace: calls that run on a connection that has reached its age end there, however long they take."""
    age = settings.rpc_max_connection_age_seconds
    return [("grpc.max_connection_age_ms", age * 1000)] if age else []


def _bind(server: grpc.Server, settings: ServiceSettings) -> int:
    address = f"{settings.rpc_host}:{settings.rpc_port}"
    if settings.tls_certificate_file and settings.tls_key_file:
        pair = (settings.tls_key_file.read_bytes(), settings.tls_certificate_file.read_bytes())
        clients = settings.tls_client_ca_file.read_bytes() if settings.tls_client_ca_file else None
        credentials = grpc.ssl_server_credentials([pair], clients, require_client_auth=clients is not None)
        return server.add_secure_port(address, credentials)
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
    """Authenticates, times and translates every call, except those of health and reflection."""

    def __init__(self, authenticator: Authenticator) -> None:
        self._authenticator = authenticator

    def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        handler = continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or method.startswith(OPEN_SERVICES):
            return handler
        token = _bearer(handler_call_details.invocation_metadata)
        descriptor = _descriptor(method)
        # Parse only after authentication, and report bytes that do not parse as the caller's mistake.
        parse = partial(_parse_all if handler.request_streaming else _parse, handler.request_deserializer)
        call = handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
        wrap = self._wrap_stream if handler.response_streaming else self._wrap_single
        make_handler = MAKE_HANDLER[handler.request_streaming, handler.response_streaming]
        return make_handler(wrap(call, descriptor, token, parse), None, handler.response_serializer)

    def _admit(self, descriptor: MethodDescriptor, token: str) -> Caller:
        caller = self._authenticator.authenticate(token)
        self._authenticator.admit(caller, descriptor)
        set_caller(caller)
        return caller

    def _wrap_single(self, inner: Any, descriptor: MethodDescriptor, token: str, parse: Parse) -> Any:
        def behaviour(request: Any, context: grpc.ServicerContext) -> Any:
            with _Call(descriptor, context):
                self._admit(descriptor, token)
                return inner(parse(request), context)

        return behaviour

    def _wrap_stream(self, inner: Any, descriptor: MethodDescriptor, token: str, parse: Parse) -> Any:
        def behaviour(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
            with _Call(descriptor, context):
                caller = self._admit(descriptor, token)
                with closing(inner(parse(request), context)) as messages:
                    for message in messages:
                        self._authenticator.still_admits(caller, token)
                        yield message

        return behaviour


def _parse(deserialize: Parse, data: bytes) -> Any:
    """Parse a request. Raises InvalidArgument: MALFORMED_REQUEST, or FIELD_TOO_LONG by `tailor/limits.py`."""
    try:
        request = deserialize(data)
    except DecodeError:
        raise InvalidArgument(
            Reason.MALFORMED_REQUEST, "The request is not a valid protobuf message of this method."
        ) from None
    check_limits(request)
    return request


def _parse_all(deserialize: Parse, stream: Iterable[bytes]) -> Iterator[Any]:
    """Parse a streamed request, message by message."""
    return map(partial(_parse, deserialize), stream)


class _Call:
    """Times a call and turns its exception into a status."""

    def __init__(self, descriptor: MethodDescriptor, context: grpc.ServicerContext) -> None:
        self._method = descriptor.full_name
        self._context = context
        self._started = time.monotonic()

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: Any) -> None:
        CALL_SECONDS.labels(self._method).observe(time.monotonic() - self._started)
        code = error.code.name if isinstance(error, TailorError) else "OK" if error is None else "INTERNAL"
        if isinstance(error, GeneratorExit):
            code = "CANCELLED"
        CALLS.labels(self._method, code).inc()
        if error is None or isinstance(error, GeneratorExit):
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
