"""Requests erasures from the registry, when a publisher withdraws a document."""

import grpc

from services.ingestion.ports import ErasureRequests
from tailor.api.registry.v1 import registry_pb2, registry_pb2_grpc
from tailor.rpc.status import wire_errors

REASON = "tombstone"
SECONDS = 10.0


class RegistryErasures(ErasureRequests):
    """Requests erasures from the registry, which has every service forget the document."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._stub = registry_pb2_grpc.RegistryServiceStub(channel)

    def request(self, document_id: str, request_id: str) -> None:
        request = registry_pb2.EraseRequest(document_ids=[document_id], request_id=request_id, reason=REASON)
        with wire_errors("registry"):
            self._stub.Erase(request, timeout=SECONDS)
