"""Channels to gRPC servers: a token on every call, TLS if asked for. Light: callers' clients import this module."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Protocol, TypeVar

import grpc

from tailor.rpc.status import wire_errors

if TYPE_CHECKING:
    from tailor.settings import ServiceSettings

__all__ = [
    "CallStream",
    "Tls",
    "open_async_channel",
    "open_channel",
    "replica_channel",
    "service_channel",
    "wire_errors",
    "with_deadlines",
]

T_co = TypeVar("T_co", covariant=True)

MAX_MESSAGE_BYTES = 64 * 1024 * 1024

OPTIONS: list[tuple[str, str | int]] = [
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    # Notice a replica that vanished without closing its connections, and do not wait long for one that does not accept any.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.min_reconnect_backoff_ms", 5_000),
    ("grpc.max_reconnect_backoff_ms", 3_000),
]
# For callers, a host name with several addresses stands for several replicas. Services stay with one: only the replica that loaded a
# candidate can answer for it.
ROUND_ROBIN = ("grpc.service_config", json.dumps({"loadBalancingConfig": [{"round_robin": {}}]}))
# gRPC waits 30 s before it looks a name up again. Replicas that are restarted one after the other can all have gone by then.
LOOK_UP_AGAIN: tuple[str, int] = ("grpc.dns_min_time_between_resolutions_ms", 1_000)
CALLER_OPTIONS: list[tuple[str, str | int]] = [ROUND_ROBIN, LOOK_UP_AGAIN, *OPTIONS]


@dataclass(frozen=True)
class Tls:
    """Verify the server by `ca`, or by gRPC's own roots. `certificate` and `key` identify the client if the server asks. All are PEM."""

    ca: bytes | None = None
    certificate: bytes | None = None
    key: bytes | None = None

    def credentials(self) -> grpc.ChannelCredentials:
        return grpc.ssl_channel_credentials(self.ca, self.key, self.certificate)


def open_channel(address: str, token: str | Callable[[], str], tls: Tls | None = None) -> grpc.Channel:
    """A caller's channel: sends `authorization: Bearer TOKEN` with every call, to every replica in turn. It connects at the first call.

    A callable is asked for a token at each call.
    """
    return _open(address, token if callable(token) else lambda: token, tls, CALLER_OPTIONS)


def open_async_channel(address: str, tls: Tls | None = None) -> grpc.aio.Channel:
    """A channel of the running event loop. It connects at the first call; each call has to send its token as metadata."""
    if tls:
        return grpc.aio.secure_channel(address, tls.credentials(), CALLER_OPTIONS)
    return grpc.aio.insecure_channel(address, CALLER_OPTIONS)


def service_channel(settings: "ServiceSettings", target: str, address: str, *, service: str) -> grpc.Channel:
    """A channel from one service to another, signed with the caller's own key for that target only."""
    from tailor.rpc.identity import Identity

    identity = Identity.load(service, settings.identity_key_file)
    return _open(address, lambda: identity.token(target), _service_tls(settings), OPTIONS)


def replica_channel(settings: "ServiceSettings", address: str) -> grpc.Channel:
    """A channel to one replica of inference, whose calls bring their own credentials. Its certificate is that of inference's address."""
    tls = _service_tls(settings)
    if tls is None:
        return grpc.insecure_channel(address, OPTIONS)
    host = settings.inference_address.rpartition(":")[0]
    return grpc.secure_channel(address, tls.credentials(), [*OPTIONS, ("grpc.ssl_target_name_override", host)])


class CallStream(Protocol[T_co]):
    """The items of a streamed call as they arrive. Iterating may block."""

    def __iter__(self) -> Iterator[T_co]: ...
    def cancel(self) -> object:
        """End the call, which stops the service's work on it. Safe from another thread while an iteration waits."""
        ...


def with_deadlines(channel: grpc.Channel, service: str, seconds: Mapping[str, float], default: float) -> grpc.Channel:
    """A channel whose calls end after the seconds of their method's name, or the default, and raise the service's TailorErrors.

    A call with a timeout ends after that one. Streamed calls return a CallStream.
    """
    return grpc.intercept_channel(channel, _Deadlines(service, seconds, default))


def _open(
    address: str, token: Callable[[], str], tls: Tls | None, options: list[tuple[str, str | int]]
) -> grpc.Channel:
    channel = (
        grpc.secure_channel(address, tls.credentials(), options) if tls else grpc.insecure_channel(address, options)
    )
    return grpc.intercept_channel(channel, _Bearer(token))


def _service_tls(settings: "ServiceSettings") -> Tls | None:
    """None if the settings name no CA."""
    if settings.tls_ca_file is None:
        return None
    ca = settings.tls_ca_file.read_bytes()
    if settings.tls_certificate_file is None or settings.tls_key_file is None:
        return Tls(ca)
    return Tls(ca, settings.tls_certificate_file.read_bytes(), settings.tls_key_file.read_bytes())


class _Details(NamedTuple):
    method: str
    timeout: float | None
    metadata: Any
    credentials: Any
    wait_for_ready: bool | None
    compression: Any


class _Bearer(
    grpc.UnaryUnaryClientInterceptor,  # type: ignore[type-arg]
    grpc.UnaryStreamClientInterceptor,  # type: ignore[type-arg]
    grpc.StreamUnaryClientInterceptor,  # type: ignore[type-arg]
    grpc.StreamStreamClientInterceptor,  # type: ignore[type-arg]
):
    """Adds the token to each call. gRPC's own call credentials are refused without TLS."""

    def __init__(self, token: Callable[[], str]) -> None:
        self._token = token

    def _add_token(self, details: Any) -> _Details:
        metadata = [*(details.metadata or ()), ("authorization", f"Bearer {self._token()}")]
        return _Details(
            details.method, details.timeout, metadata, details.credentials, details.wait_for_ready, details.compression
        )

    def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return continuation(self._add_token(client_call_details), request)

    def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return continuation(self._add_token(client_call_details), request)

    def intercept_stream_unary(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        return continuation(self._add_token(client_call_details), request_iterator)

    def intercept_stream_stream(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        return continuation(self._add_token(client_call_details), request_iterator)


class _Deadlines(
    grpc.UnaryUnaryClientInterceptor,  # type: ignore[type-arg]
    grpc.UnaryStreamClientInterceptor,  # type: ignore[type-arg]
):
    """Gives each call a deadline, and turns its failure into a TailorError."""

    def __init__(self, service: str, seconds: Mapping[str, float], default: float) -> None:
        self._service = service
        self._seconds = seconds
        self._default = default

    def _limit(self, details: Any) -> _Details:
        timeout = details.timeout
        if timeout is None:
            timeout = self._seconds.get(details.method.rpartition("/")[2], self._default)
        return _Details(
            details.method, timeout, details.metadata, details.credentials, details.wait_for_ready, details.compression
        )

    def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        with wire_errors(self._service):
            outcome = continuation(self._limit(client_call_details), request)
            outcome.result()
            return outcome

    def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return _ServiceStream[Any](self._service, continuation(self._limit(client_call_details), request))


class _ServiceStream(CallStream[T_co], Generic[T_co]):
    """The items of a call, whose failure is a TailorError."""

    def __init__(self, service: str, call: Any) -> None:
        self._service = service
        self._call = call

    def __iter__(self) -> Iterator[T_co]:
        with wire_errors(self._service):
            yield from self._call

    def cancel(self) -> object:
        return self._call.cancel()
