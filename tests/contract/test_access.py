"""Every method of every service names its callers and refuses everybody else, with every kind of wrong credential."""

import hashlib
import importlib
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import grpc
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from google.protobuf.descriptor import MethodDescriptor

from tailor.api.common.v1 import common_pb2
from tailor.errors import NotFound, PermissionDenied, Reason
from tailor.rpc.auth import Authenticator, Caller, check_access
from tailor.rpc.identity import Identity, Trust
from tailor.rpc.methods import all_methods, full_name
from tailor.rpc.server import RpcServer
from tailor.settings import ServiceSettings
from tailor.storage.buckets import ACCESS

IDENTITIES = [*ACCESS, "stranger"]
ROLES = list(common_pb2.Role.keys())
METHODS = all_methods()
SERVICES = sorted({method.containing_service.full_name for method in METHODS})
# The module that registers each service: a file of `proto/` may have several, and a package several files.
MODULES = {
    method.containing_service.full_name: method.containing_service.file.name.removesuffix(".proto").replace("/", ".")
    + "_pb2_grpc"
    for method in METHODS
}

UNAUTHENTICATED, DENIED = grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED
# The servicers are not implemented, so an admitted call gets this code.
REACHED = grpc.StatusCode.UNIMPLEMENTED


def _service(full: str) -> str:
    return full.split(".")[2]


class House:
    """A server of every service, without implementation, its trust file, and keys of every role."""

    def __init__(self, folder: Path) -> None:
        self._keys = {name: Ed25519PrivateKey.generate() for name in IDENTITIES}
        trusted = {
            name: key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
            for name, key in self._keys.items()
            if name != "stranger"
        }
        self.trusted = trusted
        (folder / "trust.json").write_text(json.dumps(trusted))
        self.callers: dict[str, Caller] = {
            f"tlr_{role}": Caller("key", "team", role, key_id=f"key_{role}") for role in ROLES
        }
        self._servers: list[RpcServer] = []
        self.channels: dict[str, grpc.Channel] = {}
        for full in SERVICES:
            self._serve(full, Trust.load(folder / "trust.json"))

    def _serve(self, full: str, trust: Trust) -> None:
        name = _service(full)
        short = full.rpartition(".")[2]
        module: Any = importlib.import_module(MODULES[full])
        server = RpcServer(
            ServiceSettings(rpc_port=0),
            name,
            servicers=[(getattr(module, f"add_{short}Servicer_to_server"), getattr(module, f"{short}Servicer")())],
            authenticator=Authenticator(name, trust, self._verify, now=_Hurried()),
            max_workers=4,
        )
        server.start()
        self._servers.append(server)
        self.channels[full] = grpc.insecure_channel(f"127.0.0.1:{server.port}")

    def _verify(self, secret_sha256: str) -> Caller:
        for secret, caller in self.callers.items():
            if hashlib.sha256(secret.encode()).hexdigest() == secret_sha256:
                return caller
        raise NotFound(Reason.UNKNOWN_KEY, "The API key is unknown, expired or revoked.")

    def token(self, service: str, audience: str) -> str:
        return Identity(service, self._keys[service]).token(audience)

    def forged(self, audience: str, **claims: Any) -> str:
        """A token that the console signed, with changed claims. A claim that is None is left out."""
        now = int(time.time())
        all_claims = {"iss": "console", "aud": audience, "iat": now, "exp": now + 60, "jti": str(uuid4())} | claims
        present = {name: value for name, value in all_claims.items() if value is not None}
        return jwt.encode(present, self._keys["console"], algorithm="EdDSA")

    def code(self, method: MethodDescriptor, authorization: str | None) -> grpc.StatusCode:
        """The status code of a call."""
        kind = "stream" if method.client_streaming else "unary"
        answer = "stream" if method.server_streaming else "unary"
        call = getattr(self.channels[method.containing_service.full_name], f"{kind}_{answer}")(f"/{full_name(method)}")
        metadata = [] if authorization is None else [("authorization", authorization)]
        try:
            reply = call(iter([b""]) if method.client_streaming else b"", timeout=60, metadata=metadata)
            if method.server_streaming:
                list(reply)
        except grpc.RpcError as error:
            return error.code()
        return grpc.StatusCode.OK

    def close(self) -> None:
        for channel in self.channels.values():
            channel.close()
        for server in self._servers:
            server.stop(0)


class _Hurried:
    """A clock that runs so fast that no verified key is remembered."""

    def __init__(self) -> None:
        self._moment = 0.0

    def __call__(self) -> float:
        self._moment += 1000.0
        return self._moment


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    house = House(tmp_path_factory.mktemp("trust"))
    yield house
    house.close()


def _access(method: MethodDescriptor) -> common_pb2.Access:
    return method.GetOptions().Extensions[common_pb2.access]


every_method = pytest.mark.parametrize("method", METHODS, ids=lambda method: method.full_name)


@every_method
def test_every_method_names_its_callers(method: MethodDescriptor) -> None:
    access = _access(method)
    assert access.roles or access.services or access.any_authenticated
    assert set(access.services) <= set(IDENTITIES) - {"stranger"}
    assert common_pb2.ROLE_UNSPECIFIED not in access.roles


@every_method
def test_no_method_is_reached_with_a_wrong_credential(house: House, method: MethodDescriptor) -> None:
    audience = _service(method.containing_service.full_name)
    elsewhere = "registry" if audience != "registry" else "training"
    past = int(time.time()) - 120
    wrong = {
        "none": None,
        "empty": "",
        "no token": "Bearer ",
        "another scheme": "Basic tlr_ROLE_OPERATOR",
        "no scheme": "tlr_ROLE_OPERATOR",
        "nonsense": "Bearer nonsense",
        "malformed": "Bearer a.b.c",
        "an unknown, expired or revoked key": "Bearer tlr_unknown",
        "only the prefix of keys": "Bearer tlr_",
        "a key with something after it": "Bearer tlr_ROLE_OPERATOR x",
        "a stranger's token": f"Bearer {house.token('stranger', audience)}",
        "a token for another service": f"Bearer {house.token('console', elsewhere)}",
        "an expired token": f"Bearer {house.forged(audience, iat=past - 60, exp=past)}",
        "a token without end": f"Bearer {house.forged(audience, exp=None)}",
        "a token that is valid for longer than a minute": f"Bearer {house.forged(audience, exp=past + 3600)}",
        "a token without id": f"Bearer {house.forged(audience, jti=None)}",
        "a token for nobody": f"Bearer {house.forged(audience, aud=None)}",
        "a token for several services": f"Bearer {house.forged(audience, aud=[audience, elsewhere])}",
        "a token in another's name": f"Bearer {house.forged(audience, iss='registry')}",
        "an unsigned token": f"Bearer {jwt.encode({'iss': 'console', 'aud': audience}, '', algorithm='none')}",
    }
    assert {name: house.code(method, value) for name, value in wrong.items()} == dict.fromkeys(wrong, UNAUTHENTICATED)


def test_a_services_token_admits_one_call(house: House) -> None:
    method = next(method for method in METHODS if "console" in _access(method).services)
    token = f"Bearer {house.token('console', _service(method.containing_service.full_name))}"
    assert [house.code(method, token) for _ in range(3)] == [REACHED, UNAUTHENTICATED, UNAUTHENTICATED]


@every_method
def test_only_the_roles_and_services_of_the_contract_reach_a_method(house: House, method: MethodDescriptor) -> None:
    access, audience = _access(method), _service(method.containing_service.full_name)
    admitted = {common_pb2.Role.Name(role) for role in access.roles}
    for role in ROLES:
        named = access.any_authenticated or role in admitted
        assert house.code(method, f"Bearer tlr_{role}") is (REACHED if named else DENIED), role
    for service in ACCESS:
        named = access.any_authenticated or service in access.services
        token = f"Bearer {house.token(service, audience)}"
        assert house.code(method, token) is (REACHED if named else DENIED), service


@every_method
def test_a_key_with_methods_reaches_only_those_and_what_comes_with_them(house: House, method: MethodDescriptor) -> None:
    siblings = method.containing_service.methods_by_name
    granting = {full_name(method)} | {full_name(siblings[name]) for name in _access(method).with_methods}
    roles = [common_pb2.Role.Name(role) for role in _access(method).roles]
    for role in roles:
        caller = Caller("key", "team", role, methods=frozenset({full_name(method)}))
        for name in granting:
            house.callers["tlr_this"] = replace(caller, methods=frozenset({name}))
            assert house.code(method, "Bearer tlr_this") is REACHED
        house.callers["tlr_others"] = replace(caller, methods=frozenset(map(full_name, METHODS)) - granting)
        assert house.code(method, "Bearer tlr_others") is DENIED


def test_a_key_that_may_ask_may_list_what_it_may_ask() -> None:
    granted = {full_name(method): set(_access(method).with_methods) for method in METHODS}
    assert granted.pop("tailor.api.inference.v1.InferenceService/ListSpecialists") == {"Generate", "StreamGenerate"}
    assert not any(granted.values())


@every_method
def test_refuses_every_caller_that_the_contract_does_not_name(method: MethodDescriptor) -> None:
    access = _access(method)
    if access.any_authenticated:
        pytest.skip("open to every authenticated caller by its contract")
    admitted_roles = {common_pb2.Role.Name(role) for role in access.roles}
    callers = [Caller("service", name) for name in IDENTITIES] + [Caller("key", "someone", role) for role in ROLES]
    for caller in callers:
        named = caller.name in access.services if caller.kind == "service" else caller.role in admitted_roles
        if named:
            check_access(method, caller)
        else:
            with pytest.raises(PermissionDenied):
                check_access(method, caller)


def test_a_key_named_like_a_service_is_not_a_service() -> None:
    verify_key = next(method for method in METHODS if method.name == "VerifyKey")
    with pytest.raises(PermissionDenied):
        check_access(verify_key, Caller("key", "inference", "ROLE_OPERATOR"))
