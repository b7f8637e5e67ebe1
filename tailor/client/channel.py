"""The clients' channels: one key on every call, and TLS where asked for."""

import json
from dataclasses import dataclass
from typing import Any, NamedTuple

import grpc

MAX_MESSAGE_BYTES = 64 * 1024 * 1024

# A name with several addresses stands for several replicas. What is retried is decided by `retries.py`.
EVERY_ADDRESS = json.dumps({"loadBalancingConfig": [{"round_robin": {}}]})
OPTIONS: list[tuple[str, str | int]] = [
    ("grpc.service_config", EVERY_ADDRESS),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    # A replica that vanishes without a word is noticed, and one that does not take the connection is not waited for.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.min_reconnect_backoff_ms", 5_000),
    ("grpc.max_reconnect_backoff_ms", 3_000),
]


@dataclass(frozen=True)
class Tls:
    """Verify the server by gRPC's own roots, or by `ca`; show it a `certificate` with its `key` where it asks for one. All are PEM."""

    ca: bytes | None = None
    certificate: bytes | None = None
    key: bytes | None = None

    def credentials(self) -> grpc.ChannelCredentials:
        """As gRPC takes them."""
        return grpc.ssl_channel_credentials(self.ca, self.key, self.certificate)


def open_channel(address: str, api_key: str, tls: Tls | None = None) -> grpc.Channel:
    """A channel that sends the key with every call; it connects at the first call."""
    channel = (
        grpc.secure_channel(address, tls.credentials(), OPTIONS) if tls else grpc.insecure_channel(address, OPTIONS)
    )
    return grpc.intercept_channel(channel, _Bearer(api_key))


def open_async_channel(address: str, tls: Tls | None = None) -> grpc.aio.Channel:
    """A channel for the running event loop; it connects at the first call, and each call brings its key."""
    if tls:
        return grpc.aio.secure_channel(address, tls.credentials(), OPTIONS)
    return grpc.aio.insecure_channel(address, OPTIONS)


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
):
    """Adds `authorization: Bearer KEY`. Call credentials would do it too, but gRPC refuses them without TLS."""

    def __init__(self, api_key: str) -> None:
        self._header = ("authorization", f"Bearer {api_key}")

    def _signed(self, details: Any) -> _Details:
        metadata = [*(details.metadata or ()), self._header]
        return _Details(
            details.method, details.timeout, metadata, details.credentials, details.wait_for_ready, details.compression
        )

    def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return continuation(self._signed(client_call_details), request)

    def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return continuation(self._signed(client_call_details), request)

    def intercept_stream_unary(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        return continuation(self._signed(client_call_details), request_iterator)
