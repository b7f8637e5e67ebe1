"""Erasure requests to the registry, over a real call."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from services.ingestion.adapters.erasures import RegistryErasures
from tailor.api.registry.v1 import registry_pb2, registry_pb2_grpc
from tailor.errors import Unavailable

DOCUMENT = "doc_" + "1" * 32


class FakeRegistry(registry_pb2_grpc.RegistryServiceServicer):
    def __init__(self) -> None:
        self.requests: list[registry_pb2.EraseRequest] = []

    def Erase(self, request: registry_pb2.EraseRequest, context: grpc.ServicerContext) -> registry_pb2.EraseResponse:
        self.requests.append(request)
        return registry_pb2.EraseResponse()


@pytest.fixture
def registry() -> Iterator[tuple[FakeRegistry, str]]:
    server, fake = grpc.server(ThreadPoolExecutor(2)), FakeRegistry()  # type: ignore[abstract]
    registry_pb2_grpc.add_RegistryServiceServicer_to_server(fake, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield fake, f"127.0.0.1:{port}"
    server.stop(None).wait()


def test_sends_the_document_the_request_id_and_a_reason(registry: tuple[FakeRegistry, str]) -> None:
    fake, address = registry
    with grpc.insecure_channel(address) as channel:
        RegistryErasures(channel)(DOCUMENT, "sub_1")
    assert fake.requests == [registry_pb2.EraseRequest(document_ids=[DOCUMENT], request_id="sub_1", reason="tombstone")]


def test_an_unreachable_registry_is_unavailable() -> None:
    with grpc.insecure_channel("127.0.0.1:1") as channel, pytest.raises(Unavailable):
        RegistryErasures(channel)(DOCUMENT, "sub_1")
