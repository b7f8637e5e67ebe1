"""Calls of data protection that wait for a second person."""

import grpc

from tailor.api.held.v1 import held_pb2, held_pb2_grpc
from tailor.rpc.status import wire_errors

SECONDS = 4


class HeldCallClient:
    """The newest held calls of the services that hold some."""

    def __init__(self, channels: dict[str, grpc.Channel]) -> None:
        self._stubs = {name: held_pb2_grpc.HeldCallServiceStub(channel) for name, channel in channels.items()}

    def list(self, service: str) -> tuple[held_pb2.HeldCall, ...]:
        """The newest calls. Raises Unavailable if the service does not answer."""
        with wire_errors(service):
            answer = self._stubs[service].ListHeldCalls(held_pb2.ListHeldCallsRequest(), timeout=SECONDS)
        return tuple(answer.held_calls)
