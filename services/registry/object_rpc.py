"""The gRPC method that verifies stored objects."""

import grpc

from services.registry.object_verification import VERIFIED, verify_objects
from services.registry.queries import Queries
from tailor.api.registry.v1 import objects_pb2, objects_pb2_grpc
from tailor.rpc.paging import invalid_token
from tailor.storage.protocol import ObjectStore

PAGE_SECONDS = 20.0


class ObjectServicer(objects_pb2_grpc.ObjectServiceServicer):
    """Translates calls."""

    def __init__(self, store: ObjectStore, queries: Queries, page_seconds: float = PAGE_SECONDS) -> None:
        self._store = store
        self._queries = queries
        self._page_seconds = page_seconds

    def VerifyObjects(
        self, request: objects_pb2.VerifyObjectsRequest, context: grpc.ServicerContext
    ) -> objects_pb2.VerifyObjectsResponse:
        del context
        if request.page_token and request.page_token.partition("/")[0] not in VERIFIED:
            raise invalid_token()
        verified = verify_objects(self._store, request.page_token, self._page_seconds)
        return objects_pb2.VerifyObjectsResponse(
            objects=verified.objects,
            bytes=verified.size_bytes,
            unnamed=verified.unnamed,
            damaged=[
                objects_pb2.DamagedObject(uri=uri, document_ids=self._queries.documents_with_text(digest))
                for uri, digest in verified.damaged
            ],
            next_page_token=verified.last,
        )
