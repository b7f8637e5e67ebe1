"""Channels to services: TLS by settings, every call signed."""

from collections.abc import Callable
from typing import Any, NamedTuple

import grpc

from tailor.rpc.identity import Identity
from tailor.rpc.status import wire_errors
from tailor.settings import ServiceSettings

__all__ = ["open_channel", "service_channel", "wire_errors"]

OPTIONS = [
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
    ("grpc.max_send_message_length", 64 * 1024 * 1024),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.max_reconnect_backoff_ms", 3_000),
]


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
    """Adds `authorization: Bearer TOKEN` to every call."""

    def __init__(self, token: Callable[[], str]) -> None:
        self._token = token

    def _signed(self, details: Any) -> _Details:
        metadata = [*(details.metadata or ()), ("authorization", f"Bearer {self._token()}")]
        return _Details(
            details.method, details.timeout, metadata, details.credentials, details.wait_for_ready, details.compression
        )

    def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return continuation(self._signed(client_call_details), request)

    def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return continuation(self._signed(client_call_details), request)

    def intercept_stream_unary(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        return continuation(self._signed(client_call_details), request_iterator)

    def intercept_stream_stream(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        return continuation(self._signed(client_call_details), request_iterator)


def open_channel(
    address: str, token: Callable[[], str], credentials: grpc.ChannelCredentials | None = None
) -> grpc.Channel:
    """A channel whose calls carry a bearer token, over TLS where there are credentials; it connects at the first call."""
    channel = (
        grpc.secure_channel(address, credentials, OPTIONS) if credentials else grpc.insecure_channel(address, OPTIONS)
    )
    return grpc.intercept_channel(channel, _Bearer(token))


def service_channel(settings: ServiceSettings, target: str, address: str, *, service: str) -> grpc.Channel:
    """A channel from one service to another, signed with the caller's own key for that target alone."""
    identity = Identity.load(service, settings.identity_key_file)
    return open_channel(address, lambda: identity.token(target), tls_credentials(settings))


def tls_credentials(settings: ServiceSettings) -> grpc.ChannelCredentials | None:
    """How the other side is verified, with our own certificate for where it asks for one; None where no CA is named."""
    if settings.tls_ca_file is None:
        return None
    ca = settings.tls_ca_file.read_bytes()
    if settings.tls_certificate_file is None or settings.tls_key_file is None:
        return grpc.ssl_channel_credentials(ca)
    return grpc.ssl_channel_credentials(
        ca, settings.tls_key_file.read_bytes(), settings.tls_certificate_file.read_bytes()
    )
