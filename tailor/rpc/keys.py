"""Verify API keys with the registry."""

import grpc

from tailor.api.common.v1 import common_pb2
from tailor.api.registry.v1 import registry_pb2, registry_pb2_grpc
from tailor.rpc.auth import Authenticator, Caller
from tailor.rpc.channel import service_channel, wire_errors
from tailor.rpc.identity import Trust
from tailor.settings import ServiceSettings
from tailor.wire import enum_name

TIMEOUT_SECONDS = 3


class RegistryKeys:
    """Looks up the holder of a key in the registry."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._stub = registry_pb2_grpc.RegistryServiceStub(channel)

    def verify(self, secret_sha256: str) -> Caller:
        """Find the holder of a key by its hash. Raises NotFound for an unknown, expired or revoked key, Unavailable without registry."""
        with wire_errors("registry"):
            key = self._stub.VerifyKey(
                registry_pb2.VerifyKeyRequest(secret_sha256=secret_sha256), timeout=TIMEOUT_SECONDS
            ).key
        return to_caller(key)


def to_caller(key: registry_pb2.Key) -> Caller:
    return Caller(
        kind="key",
        name=key.name,
        role=enum_name(common_pb2.Role, key.role),
        specialists=frozenset(key.specialists),
        key_id=key.key_id,
        methods=frozenset(key.methods),
        calls_per_minute=key.calls_per_minute,
    )


def authenticator(settings: ServiceSettings, service: str) -> Authenticator:
    """The authenticator of every service except the registry, which verifies keys itself."""
    channel = service_channel(settings, "registry", settings.registry_address, service=service)
    return Authenticator(service, Trust.load(settings.trust_file), RegistryKeys(channel).verify)
