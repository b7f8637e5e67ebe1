"""The client's channel: one key on every call, TLS where asked for, and retries by gRPC itself."""

import json
from dataclasses import dataclass
from typing import Any, NamedTuple

import grpc

MAX_MESSAGE_BYTES = 64 * 1024 * 1024

# What the client retries: only calls to inference, and only while nothing of an answer has come. gRPC caps the attempts at 5.
RETRIES = json.dumps(
    {
        "methodConfig": [
            {
                "name": [{"service": "tailor.api.inference.v1.InferenceService"}],
                "retryPolicy": {
                    "maxAttempts": 5,
                    "initialBackoff": "0.3s",
                    "maxBackoff": "5s",
                    "backoffMultiplier": 2.5,
                    "retryableStatusCodes": ["UNAVAILABLE", "RESOURCE_EXHAUSTED"],
                },
            }
        ]
    }
)
OPTIONS: list[tuple[str, str | int]] = [
    ("grpc.service_config", RETRIES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_reconnect_backoff_ms", 3_000),
]


@dataclass(frozen=True)
class Tls:
    """Verify the server; by the system's roots, or by `ca` (PEM)."""

    ca: bytes | None = None


def open_channel(address: str, api_key: str, tls: Tls | None = None) -> grpc.Channel:
    """A channel that sends the key with every call; it connects at the first call."""
    channel = (
        grpc.secure_channel(address, grpc.ssl_channel_credentials(tls.ca), OPTIONS)
        if tls
        else grpc.insecure_channel(address, OPTIONS)
    )
    return grpc.intercept_channel(channel, _Bearer(api_key))


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
