"""TLS between services and to callers, with freshly made certificates."""

import asyncio
import json
import socket
import ssl
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from tailor.api.anonymization.v1 import anonymization_pb2, anonymization_pb2_grpc
from tailor.errors import NotFound, Reason, Unavailable
from tailor.rpc.auth import Authenticator, Caller, current_caller
from tailor.rpc.certificates import CertificateFiles, renewal
from tailor.rpc.channel import Tls, open_channel, service_channel, wire_errors
from tailor.rpc.identity import Trust
from tailor.rpc.server import RpcServer
from tailor.settings import ServiceSettings
from tests.unit.ingestion.tls import make_authority


class Servicer(anonymization_pb2_grpc.AnonymizationServiceServicer):
    def Anonymize(
        self, request: anonymization_pb2.AnonymizeRequest, context: grpc.ServicerContext
    ) -> anonymization_pb2.AnonymizeResponse:
        return anonymization_pb2.AnonymizeResponse(text=current_caller().name)

    def Reidentify(
        self, request: anonymization_pb2.ReidentifyRequest, context: grpc.ServicerContext
    ) -> anonymization_pb2.ReidentifyResponse:
        return anonymization_pb2.ReidentifyResponse(value=current_caller().name)


class Authority:
    """A certificate authority with a certificate and key for `localhost`."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.ca, self.certificate, self.key = make_authority(folder, "localhost")


class World:
    """Two authorities and the registry's identity."""

    def __init__(self, folder: Path) -> None:
        self.ours, self.another = Authority(folder / "ours"), Authority(folder / "another")
        key = Ed25519PrivateKey.generate()
        self.identity, self.trust = folder / "registry.pem", folder / "trust.json"
        self.identity.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
        self.trust.write_text(json.dumps({"registry": public}))

    @contextmanager
    def serving(self, client_ca: Path | None = None) -> Iterator[int]:
        """The port of a server with our certificate. It asks for callers' certificates if `client_ca` is given."""
        settings = ServiceSettings(
            rpc_port=0,
            rpc_host="localhost",
            tls_certificate_file=self.ours.certificate,
            tls_key_file=self.ours.key,
            tls_client_ca_file=client_ca,
        )
        authenticator = Authenticator("anonymization", Trust.load(self.trust), _verify)
        add = anonymization_pb2_grpc.add_AnonymizationServiceServicer_to_server
        servicer = Servicer()  # type: ignore[abstract]  # only what the tests call
        server = RpcServer(settings, "anonymization", servicers=[(add, servicer)], authenticator=authenticator)
        server.start()
        yield server.port
        server.stop(0)

    def anonymize(self, port: int, ca: Path | None = None, client: Authority | None = None) -> str:
        """Call as the registry: verify the server by `ca` and show the certificate of `client`."""
        settings = ServiceSettings(
            identity_key_file=self.identity,
            tls_ca_file=ca,
            tls_certificate_file=client.certificate if client else None,
            tls_key_file=client.key if client else None,
        )
        with (
            service_channel(settings, "anonymization", f"localhost:{port}", service="registry") as channel,
            wire_errors("anonymization"),
        ):
            stub = anonymization_pb2_grpc.AnonymizationServiceStub(channel)
            return stub.Anonymize(anonymization_pb2.AnonymizeRequest(text="x"), timeout=60).text


def _verify(_: str) -> Caller:
    raise NotFound(Reason.UNKNOWN_KEY, "unknown")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("tls"))


def test_a_service_uses_tls_and_verifies_the_server(world: World) -> None:
    with world.serving() as port:
        assert world.anonymize(port, world.ours.ca) == "registry"
        for ca in (world.another.ca, None):
            with pytest.raises(Unavailable):
                world.anonymize(port, ca)


def test_a_server_that_asks_for_certificates_admits_only_those_of_its_authority(world: World) -> None:
    with world.serving(world.ours.ca) as port:
        assert world.anonymize(port, world.ours.ca, world.ours) == "registry"
        for client in (None, world.another):
            with pytest.raises(Unavailable):
                world.anonymize(port, world.ours.ca, client)


def test_a_new_certificate_is_used_without_a_restart_and_one_without_its_key_is_not(tmp_path: Path) -> None:
    world = World(tmp_path)
    old_ca = world.ours.ca.read_bytes()
    (tmp_path / "old.pem").write_bytes(old_ca)
    with world.serving() as port:
        assert world.anonymize(port, tmp_path / "old.pem") == "registry"
        # Half of a replacement: the old pair stays.
        world.ours.certificate.write_bytes(world.another.certificate.read_bytes())
        assert world.anonymize(port, tmp_path / "old.pem") == "registry"
        world.ours.key.write_bytes(world.another.key.read_bytes())
        assert world.anonymize(port, world.another.ca) == "registry"
        with pytest.raises(Unavailable):
            world.anonymize(port, tmp_path / "old.pem")


def test_a_new_authority_of_callers_is_used_without_a_restart(tmp_path: Path) -> None:
    world = World(tmp_path)
    clients = tmp_path / "clients.pem"
    clients.write_bytes(world.another.ca.read_bytes())
    with world.serving(clients) as port:
        assert world.anonymize(port, world.ours.ca, world.another) == "registry"
        clients.write_bytes(world.ours.ca.read_bytes())
        assert world.anonymize(port, world.ours.ca, world.ours) == "registry"
        with pytest.raises(Unavailable):
            world.anonymize(port, world.ours.ca, world.another)


def served_certificate(context: ssl.SSLContext) -> bytes:
    """The certificate that a server with the context shows."""
    ours, theirs = socket.socketpair()
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    with ThreadPoolExecutor(1) as pool:
        accepted = pool.submit(context.wrap_socket, ours, server_side=True)
        with client.wrap_socket(theirs) as connection, accepted.result(60):
            return connection.getpeercert(binary_form=True) or b""


def test_an_http_server_uses_a_new_certificate_for_new_connections(world: World, tmp_path: Path) -> None:
    first, second = Authority(tmp_path / "first"), Authority(tmp_path / "second")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(first.certificate, first.key)
    renew = renewal(CertificateFiles(first.certificate, first.key), lambda: context)
    before = served_certificate(context)
    asyncio.run(renew())
    assert served_certificate(context) == before
    first.certificate.write_bytes(second.certificate.read_bytes())
    asyncio.run(renew())
    assert served_certificate(context) == before
    first.key.write_bytes(second.key.read_bytes())
    asyncio.run(renew())
    assert served_certificate(context) == ssl.PEM_cert_to_DER_cert(second.certificate.read_text(encoding="ascii"))


def test_files_that_are_gone_keep_the_certificate(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ours")
    files = CertificateFiles(authority.certificate, authority.key)
    files.read()
    authority.certificate.unlink()
    assert files.read_changed() is None


def test_a_certificate_does_not_replace_a_token(world: World) -> None:
    with world.serving(world.ours.ca) as port:
        pair = (world.ours.key.read_bytes(), world.ours.certificate.read_bytes())
        credentials = grpc.ssl_channel_credentials(world.ours.ca.read_bytes(), *pair)
        with grpc.secure_channel(f"localhost:{port}", credentials) as channel:
            stub = anonymization_pb2_grpc.AnonymizationServiceStub(channel)
            with pytest.raises(grpc.RpcError) as refused:
                stub.Anonymize(anonymization_pb2.AnonymizeRequest(text="x"), timeout=60)
    assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED


def test_the_callers_client_verifies_the_server(world: World) -> None:
    with world.serving() as port:
        for ca, code in (
            (world.ours.ca, grpc.StatusCode.UNAUTHENTICATED),
            (world.another.ca, grpc.StatusCode.UNAVAILABLE),
        ):
            with open_channel(f"localhost:{port}", "tlr_unknown", Tls(ca.read_bytes())) as channel:
                stub = anonymization_pb2_grpc.AnonymizationServiceStub(channel)
                with pytest.raises(grpc.RpcError) as refused:
                    stub.Reidentify(anonymization_pb2.ReidentifyRequest(), timeout=60)
            assert refused.value.code() is code
