"""Every method of every running service, with every kind of wrong credential."""

import importlib
import pkgutil
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor

import tailor.api
from tailor.api.common.v1 import common_pb2
from tailor.api.registry.v1 import registry_pb2
from tailor.rpc.identity import Identity
from tests.e2e.conftest import Installation, wait_until

pytestmark = pytest.mark.e2e


def _methods() -> list[MethodDescriptor]:
    modules = [
        info.name for info in pkgutil.walk_packages(tailor.api.__path__, "tailor.api.") if info.name.endswith("_pb2")
    ]
    files = [importlib.import_module(name).DESCRIPTOR for name in modules]
    return [method for file in files for service in file.services_by_name.values() for method in service.methods]


METHODS = _methods()


def _code(installation: Installation, method: MethodDescriptor, token: str | None) -> grpc.StatusCode:
    service = method.containing_service.full_name.split(".")[2]
    path = f"/{method.containing_service.full_name}/{method.name}"
    metadata = [] if token is None else [("authorization", f"Bearer {token}")]
    with grpc.insecure_channel(installation.connection.service_addresses[service]) as channel:
        kind = "stream" if method.client_streaming else "unary"
        answer = "stream" if method.server_streaming else "unary"
        call = getattr(channel, f"{kind}_{answer}")(path, None, None)
        request: Any = iter([b""]) if method.client_streaming else b""
        try:
            reply = call(request, timeout=20, metadata=metadata)
            if method.server_streaming:
                next(iter(reply), None)
                reply.cancel()
        except grpc.RpcError as error:
            return error.code()  # type: ignore[attr-defined, no-any-return]
    return grpc.StatusCode.OK


@pytest.fixture(scope="module")
def caller_key(installation: Installation) -> Iterator[str]:
    request = registry_pb2.CreateKeyRequest(name="walk", role=common_pb2.ROLE_CALLER)
    created = installation.registry.CreateKey(request)
    yield created.secret
    installation.registry.RevokeKey(registry_pb2.RevokeKeyRequest(key_id=created.key.key_id))


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.full_name)
def test_no_method_answers_without_a_right_credential(installation: Installation, method: MethodDescriptor) -> None:
    elsewhere = Identity.load("console", installation.stack.layout.secrets / "console.pem").token("somewhere-else")
    for token in (None, "", "nonsense", "tlr_unknown", "a.b.c", elsewhere):
        assert _code(installation, method, token) is grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.full_name)
def test_a_callers_key_opens_the_callers_methods_alone(
    installation: Installation, method: MethodDescriptor, caller_key: str
) -> None:
    access = method.GetOptions().Extensions[common_pb2.access]
    refused = _code(installation, method, caller_key) is grpc.StatusCode.PERMISSION_DENIED
    assert refused != (common_pb2.ROLE_CALLER in access.roles or access.any_authenticated)


def test_a_revoked_key_ends_within_seconds(installation: Installation) -> None:
    request = registry_pb2.CreateKeyRequest(name="brief", role=common_pb2.ROLE_CALLER)
    created = installation.registry.CreateKey(request)
    method = next(method for method in METHODS if method.full_name.endswith("InferenceService.ListSpecialists"))
    assert _code(installation, method, created.secret) is grpc.StatusCode.OK
    installation.registry.RevokeKey(registry_pb2.RevokeKeyRequest(key_id=created.key.key_id))
    refused = grpc.StatusCode.UNAUTHENTICATED
    wait_until(lambda: _code(installation, method, created.secret) is refused, "the end of a revoked key", 10)
