"""The server's interceptor, over a real port."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tailor.api.anonymization.v1 import anonymization_pb2, anonymization_pb2_grpc
from tailor.errors import (
    InvalidArgument,
    NotFound,
    PermissionDenied,
    Reason,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
    Unimplemented,
)
from tailor.rpc.auth import Authenticator, Caller, current_caller
from tailor.rpc.channel import open_channel, wire_errors
from tailor.rpc.identity import Identity, Trust
from tailor.rpc.server import RpcServer
from tailor.settings import ServiceSettings

DATA_PROTECTION_KEY = "tlr_protection"
CALLER_KEY = "tlr_caller"
HURRIED_KEY = "tlr_hurried"


def _verify(secret_sha256: str) -> Caller:
    import hashlib

    keys = {DATA_PROTECTION_KEY: "ROLE_DATA_PROTECTION", CALLER_KEY: "ROLE_CALLER"}
    for secret, role in keys.items():
        if hashlib.sha256(secret.encode()).hexdigest() == secret_sha256:
            return Caller("key", "test", role, key_id="key_1")
    if hashlib.sha256(HURRIED_KEY.encode()).hexdigest() == secret_sha256:
        return Caller("key", "test", "ROLE_DATA_PROTECTION", key_id="key_2", calls_per_minute=2)
    raise NotFound(Reason.UNKNOWN_KEY, "unknown")


class Servicer(anonymization_pb2_grpc.AnonymizationServiceServicer):
    def Anonymize(
        self, request: anonymization_pb2.AnonymizeRequest, context: grpc.ServicerContext
    ) -> anonymization_pb2.AnonymizeResponse:
        if request.text == "wrong":
            raise InvalidArgument(
                Reason.TEXT_TOO_LONG, "Send a shorter text.", field_violations={"text": "wrong"}, hint="x"
            )
        if request.text == "full":
            raise ResourceExhausted(Reason.QUEUE_FULL, "Later.", retry_after_seconds=1.5)
        if request.text == "bug":
            raise KeyError("Sarah Jenkins")
        return anonymization_pb2.AnonymizeResponse(text=current_caller().name)

    def Reidentify(
        self, request: anonymization_pb2.ReidentifyRequest, context: grpc.ServicerContext
    ) -> anonymization_pb2.ReidentifyResponse:
        return anonymization_pb2.ReidentifyResponse(value=current_caller().role)


class World:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.trust: dict[str, str] = {}

    def identity(self, service: str, *, trusted: bool = True) -> Identity:
        key = Ed25519PrivateKey.generate()
        path = self.directory / f"{service}.pem"
        path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        if trusted:
            pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
            self.trust[service] = pem.decode()
            (self.directory / "trust.json").write_text(json.dumps(self.trust))
        return Identity.load(service, path)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture
def address(world: World) -> Iterator[str]:
    for service in ("registry", "training"):
        world.identity(service)
    settings = ServiceSettings(rpc_port=0)
    authenticator = Authenticator("anonymization", Trust.load(world.directory / "trust.json"), _verify)
    add = anonymization_pb2_grpc.add_AnonymizationServiceServicer_to_server
    servicer = Servicer()  # type: ignore[abstract]  # only what the tests call
    server = RpcServer(settings, "anonymization", servicers=[(add, servicer)], authenticator=authenticator)
    server.start()
    yield f"127.0.0.1:{server.port}"
    server.stop(0)


def _anonymize(address: str, token: str, text: str = "hello") -> str:
    with open_channel(address, lambda: token) as channel, wire_errors("anonymization"):
        stub = anonymization_pb2_grpc.AnonymizationServiceStub(channel)
        return stub.Anonymize(anonymization_pb2.AnonymizeRequest(text=text), timeout=60).text


def _token(world: World, service: str, audience: str = "anonymization") -> str:
    return Identity.load(service, world.directory / f"{service}.pem").token(audience)


def test_admits_a_service_that_the_contract_names(world: World, address: str) -> None:
    assert _anonymize(address, _token(world, "registry")) == "registry"


def test_refuses_a_service_that_the_contract_does_not_name(world: World, address: str) -> None:
    with pytest.raises(PermissionDenied):
        _anonymize(address, _token(world, "training"))


def test_refuses_a_token_for_another_service(world: World, address: str) -> None:
    with pytest.raises(Unauthenticated):
        _anonymize(address, _token(world, "registry", audience="inference"))


@pytest.mark.parametrize(
    ("token", "reason"),
    [
        ("", "NO_CREDENTIALS"),
        ("nonsense", "INVALID_KEY"),
        ("a.b.c", "INVALID_KEY"),
        ("tlr_unknown", "UNKNOWN_KEY"),
    ],
)
def test_refuses_wrong_credentials_with_their_reason(address: str, token: str, reason: str) -> None:
    with pytest.raises(Unauthenticated) as refused:
        _anonymize(address, token)
    assert refused.value.reason == reason


def test_refuses_an_untrusted_key_that_claims_to_be_a_service(world: World, address: str) -> None:
    impostor = world.identity("registry", trusted=False)
    with pytest.raises(Unauthenticated):
        _anonymize(address, impostor.token("anonymization"))


def test_admits_an_api_key_only_by_its_role(address: str) -> None:
    with open_channel(address, lambda: DATA_PROTECTION_KEY) as channel:
        stub = anonymization_pb2_grpc.AnonymizationServiceStub(channel)
        assert stub.Reidentify(anonymization_pb2.ReidentifyRequest(), timeout=60).value == "ROLE_DATA_PROTECTION"
    with pytest.raises(PermissionDenied):
        _anonymize(address, CALLER_KEY)


def test_a_key_that_calls_too_often_learns_when_to_retry(address: str) -> None:
    with open_channel(address, lambda: HURRIED_KEY) as channel:
        stub = anonymization_pb2_grpc.AnonymizationServiceStub(channel)
        for _ in range(2):
            stub.Reidentify(anonymization_pb2.ReidentifyRequest(), timeout=60)
        with pytest.raises(ResourceExhausted) as refused, wire_errors("anonymization"):
            stub.Reidentify(anonymization_pb2.ReidentifyRequest(), timeout=60)
    assert refused.value.reason == "RATE_EXCEEDED"
    assert 0 < (refused.value.retry_after_seconds or 0) <= 30


def test_errors_carry_reason_violations_and_retry_time_over_the_wire(world: World, address: str) -> None:
    with pytest.raises(InvalidArgument) as wrong:
        _anonymize(address, _token(world, "registry"), "wrong")
    assert (wrong.value.reason, wrong.value.field_violations, wrong.value.metadata) == (
        "TEXT_TOO_LONG",
        {"text": "wrong"},
        {"hint": "x"},
    )
    with pytest.raises(ResourceExhausted) as full:
        _anonymize(address, _token(world, "registry"), "full")
    assert full.value.retry_after_seconds == 1.5


def test_an_unexpected_error_reveals_nothing_to_the_caller_or_the_log(
    world: World, address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(Unavailable) as fault:
        _anonymize(address, _token(world, "registry"), "bug")
    captured = capsys.readouterr()
    assert "Sarah" not in fault.value.message + captured.err + captured.out


@pytest.mark.parametrize("data", [b"\xff\xff\xff", b"\x0a\x02\xff\xfe", b"\x0a\x7f"])
def test_parses_a_request_only_after_authentication_and_rejects_malformed_bytes(
    world: World, address: str, data: bytes
) -> None:
    method = "/tailor.api.anonymization.v1.AnonymizationService/Anonymize"
    with (
        open_channel(address, lambda: "tlr_unknown") as channel,
        pytest.raises(Unauthenticated),
        wire_errors("anonymization"),
    ):
        channel.unary_unary(method, None, None)(data, timeout=60)
    token = _token(world, "registry")
    with (
        open_channel(address, lambda: token) as channel,
        pytest.raises(InvalidArgument) as refused,
        wire_errors("anonymization"),
    ):
        channel.unary_unary(method, None, None)(data, timeout=60)
    assert refused.value.reason == "MALFORMED_REQUEST"


def test_a_call_that_the_service_does_not_have_says_so(world: World, address: str) -> None:
    token = _token(world, "registry")
    with (
        open_channel(address, lambda: token) as channel,
        pytest.raises(Unimplemented) as missing,
        wire_errors("anonymization"),
    ):
        channel.unary_unary("/tailor.api.anonymization.v1.AnonymizationService/Forgive", None, None)(b"", timeout=60)
    assert missing.value.reason == Reason.UNIMPLEMENTED and "another version" in missing.value.message


def test_an_absent_service_is_unavailable(world: World) -> None:
    world.identity("registry")
    with pytest.raises(Unavailable):
        _anonymize("127.0.0.1:1", _token(world, "registry"))


def test_health_is_open_and_not_serving_before_set_serving(address: str) -> None:
    with grpc.insecure_channel(address) as channel:
        state = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=60).status
    assert state == health_pb2.HealthCheckResponse.NOT_SERVING


def test_connection_that_reached_its_age_is_replaced_by_another(world: World) -> None:
    world.identity("registry")
    settings = ServiceSettings(rpc_port=0, rpc_connection_age_seconds=1)
    authenticator = Authenticator("anonymization", Trust.load(world.directory / "trust.json"), _verify)
    add = anonymization_pb2_grpc.add_AnonymizationServiceServicer_to_server
    server = RpcServer(settings, "anonymization", servicers=[(add, Servicer())], authenticator=authenticator)  # type: ignore[abstract]
    server.start()
    again, states = threading.Event(), list[grpc.ChannelConnectivity]()

    def note(state: grpc.ChannelConnectivity) -> None:
        states.append(state)
        if states.count(grpc.ChannelConnectivity.READY) > 1:
            again.set()

    with open_channel(f"127.0.0.1:{server.port}", lambda: _token(world, "registry")) as channel:
        channel.subscribe(note)
        stub = anonymization_pb2_grpc.AnonymizationServiceStub(channel)
        request = anonymization_pb2.AnonymizeRequest(text="hello")
        assert stub.Anonymize(request, timeout=60).text == "registry"
        assert again.wait(60)
        assert stub.Anonymize(request, timeout=60).text == "registry"
    server.stop(0)
