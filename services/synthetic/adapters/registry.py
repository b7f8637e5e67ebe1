"""Asking the registry which documents a specialist selects."""

import grpc

from services.synthetic import wire
from services.synthetic.domain import Document
from tailor.api.registry.v1 import registry_pb2, registry_pb2_grpc
from tailor.rpc.channel import wire_errors

PAGE = 500
TIMEOUT_SECONDS = 30


class RegistryDocuments:
    """Lists documents; call it with a specialist's name."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._stub = registry_pb2_grpc.RegistryServiceStub(channel)

    def __call__(self, specialist: str) -> list[Document]:
        """All documents that the specialist selects; Unavailable without the registry."""
        found: list[Document] = []
        token = ""
        while True:
            request = registry_pb2.ListDocumentsRequest(specialist=specialist, page_size=PAGE, page_token=token)
            with wire_errors("registry"):
                page = self._stub.ListDocuments(request, timeout=TIMEOUT_SECONDS)
            found += [wire.to_document(one.anonymized) for one in page.documents if one.HasField("anonymized")]
            token = page.next_page_token
            if not token:
                return found
