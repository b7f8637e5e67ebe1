"""The registry's verification of objects in this process."""

from typing import Any

from tailor.api.registry.v1 import objects_pb2, objects_pb2_grpc


class FakeObjects(objects_pb2_grpc.ObjectServiceServicer):
    """Answers with the pages that a test sets, by their tokens."""

    def __init__(self) -> None:
        self.pages = {"": objects_pb2.VerifyObjectsResponse()}

    def VerifyObjects(self, request: Any, context: Any) -> Any:
        return self.pages[request.page_token]
