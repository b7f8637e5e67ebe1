"""Every method of every running service, with every kind of wrong credential."""

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import grpc
import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.timestamp_pb2 import Timestamp

from tailor.api.common.v1 import common_pb2
from tailor.api.registry.v1 import people_pb2, people_pb2_grpc, registry_pb2
from tailor.local.layout import SERVICES
from tailor.rpc.identity import Identity
from tailor.rpc.methods import all_methods
from tests.e2e.conftest import Installation, ask_until
from tests.unit.console.world import csrf, sign_in
from tests.waiting import wait_until

pytestmark = pytest.mark.e2e


# A company implements these itself; the installation only calls them.
FOREIGN = ("DetectorService", "MetricService")
# Every service but the console, which has no gRPC, serves EventService.
ALL = [service for service in SERVICES if service != "console"]
SHARED = {"events": ALL}


@dataclass(frozen=True)
class ServedMethod:
    """A method at one service that serves it."""

    service: str
    method: MethodDescriptor

    def __str__(self) -> str:
        return f"{self.service}:{self.method.full_name}"


def _served(method: MethodDescriptor) -> list[ServedMethod]:
    owner = method.containing_service.full_name.split(".")[2]
    return [ServedMethod(service, method) for service in SHARED.get(owner, [owner])]


METHODS = [
    served for method in all_methods() if method.containing_service.name not in FOREIGN for served in _served(method)
]
LIST = next(served for served in METHODS if served.method.full_name.endswith("InferenceService.ListSpecialists"))


def _code(installation: Installation, served: ServedMethod, token: str | None) -> grpc.StatusCode:
    method = served.method
    path = f"/{method.containing_service.full_name}/{method.name}"
    metadata = [] if token is None else [("authorization", f"Bearer {token}")]
    with grpc.insecure_channel(installation.connection.service_addresses[served.service]) as channel:
        kind = "stream" if method.client_streaming else "unary"
        answer = "stream" if method.server_streaming else "unary"
        call = getattr(channel, f"{kind}_{answer}")(path, None, None)
        request: Any = iter([b""]) if method.client_streaming else b""
        try:
            reply = call(request, timeout=60, metadata=metadata)
            if method.server_streaming:
                next(iter(reply), None)
                reply.cancel()
        except grpc.RpcError as error:
            return error.code()
    return grpc.StatusCode.OK


def _key(installation: Installation, **terms: Any) -> registry_pb2.CreateKeyResponse:
    request = registry_pb2.CreateKeyRequest(name="walk", role=common_pb2.ROLE_CALLER, **terms)
    return installation.registry.CreateKey(request)


@pytest.fixture(scope="module")
def caller_key(installation: Installation) -> Iterator[str]:
    created = _key(installation)
    yield created.secret
    installation.registry.RevokeKey(registry_pb2.RevokeKeyRequest(key_id=created.key.key_id))


@pytest.fixture(scope="module")
def dead_keys(installation: Installation) -> list[str]:
    """A revoked key and an expired key. Neither was used before."""
    revoked, moment = _key(installation), Timestamp()
    installation.registry.RevokeKey(registry_pb2.RevokeKeyRequest(key_id=revoked.key.key_id))
    moment.FromSeconds(int(time.time()) - 1)
    return [revoked.secret, _key(installation, expire_time=moment).secret]


@pytest.fixture(scope="module")
def foreign_tokens(installation: Installation) -> dict[str, list[str]]:
    """For each service: the console's token for another service, its expired token, and a token signed by an unknown key."""
    key = load_pem_private_key((installation.stack.layout.secrets / "console.pem").read_bytes(), password=None)
    assert isinstance(key, Ed25519PrivateKey)
    console, stranger = Identity("console", key), Identity("console", Ed25519PrivateKey.generate())
    now = int(time.time())
    return {
        service: [
            console.token("somewhere-else"),
            stranger.token(service),
            jwt.encode({"iss": "console", "aud": service, "iat": now - 300, "exp": now - 240}, key, algorithm="EdDSA"),
        ]
        for service in ALL
    }


@pytest.mark.parametrize("served", METHODS, ids=str)
def test_no_method_answers_without_a_valid_credential(
    installation: Installation, served: ServedMethod, dead_keys: list[str], foreign_tokens: dict[str, list[str]]
) -> None:
    foreign = foreign_tokens[served.service]
    for token in (None, "", "nonsense", "tlr_unknown", "a.b.c", *dead_keys, *foreign):
        assert _code(installation, served, token) is grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize("served", METHODS, ids=str)
def test_a_callers_key_opens_only_the_callers_methods(
    installation: Installation, served: ServedMethod, caller_key: str
) -> None:
    access = served.method.GetOptions().Extensions[common_pb2.access]
    refused = _code(installation, served, caller_key) is grpc.StatusCode.PERMISSION_DENIED
    assert refused != (common_pb2.ROLE_CALLER in access.roles or access.any_authenticated)


@pytest.mark.parametrize("served", METHODS, ids=str)
def test_a_key_with_methods_opens_only_those(
    installation: Installation, served: ServedMethod, limited_key: str
) -> None:
    refused = _code(installation, served, limited_key) is grpc.StatusCode.PERMISSION_DENIED
    assert refused != (served.method.full_name == "tailor.api.inference.v1.InferenceService.ListSpecialists")


@pytest.fixture(scope="module")
def limited_key(installation: Installation) -> str:
    return _key(installation, methods=["ListSpecialists"]).secret


def test_a_key_that_calls_too_often_is_refused(installation: Installation) -> None:
    secret = _key(installation, calls_per_minute=2).secret
    codes = [_code(installation, LIST, secret) for _ in range(3)]
    assert codes == [grpc.StatusCode.OK, grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED]


def test_a_revoked_key_is_refused_within_seconds(installation: Installation) -> None:
    created = _key(installation)
    assert _code(installation, LIST, created.secret) is grpc.StatusCode.OK
    installation.registry.RevokeKey(registry_pb2.RevokeKeyRequest(key_id=created.key.key_id))
    refused = grpc.StatusCode.UNAUTHENTICATED
    ask_until(lambda: _code(installation, LIST, created.secret) is refused, "the refusal of a revoked key", 10)


def test_a_person_is_invited_signs_in_to_the_console_and_ends_when_removed(installation: Installation) -> None:
    people = people_pb2_grpc.PeopleServiceStub(installation.channel("registry"))
    request = people_pb2.InvitePersonRequest(name="Ada Example", role=common_pb2.ROLE_EXPERT)
    invited = people.InvitePerson(request, timeout=60)
    with httpx.Client(base_url=installation.connection.console_url, timeout=60) as browser:
        form = {"code": invited.code, "csrf": csrf(browser, "/invitation")}
        secret = re.search(r"tlp_[\w-]{43}", browser.post("/invitation", data=form).text)
        assert secret
        sign_in(browser, secret.group())
        assert "Ada Example" in browser.get("/ask").text
        people.RemovePerson(people_pb2.RemovePersonRequest(person_id=invited.person.person_id), timeout=60)
        wait_until(lambda: browser.get("/ask").status_code == 303, 5)
