"""Held calls in this process."""

from typing import Any

from tailor.api.held.v1 import held_pb2, held_pb2_grpc
from tailor.errors import NotFound, Reason
from tests.fakes.serving import refuse


class FakeHeldCalls(held_pb2_grpc.HeldCallServiceServicer):
    """Has the calls that tests set. Stores which were approved and declined."""

    def __init__(self) -> None:
        self.calls: list[held_pb2.HeldCall] = []
        self.approved: list[str] = []
        self.declined: list[str] = []

    def ListHeldCalls(self, request: Any, context: Any) -> Any:
        return held_pb2.ListHeldCallsResponse(held_calls=self.calls)

    def ApproveHeldCall(self, request: Any, context: Any) -> Any:
        held = self._find(request.held_call_id, context)
        self.approved.append(held.held_call_id)
        return held_pb2.ApproveHeldCallResponse(held_call=held)

    def DeclineHeldCall(self, request: Any, context: Any) -> Any:
        held = self._find(request.held_call_id, context)
        self.declined.append(held.held_call_id)
        return held_pb2.DeclineHeldCallResponse(held_call=held)

    def _find(self, held_call_id: str, context: Any) -> held_pb2.HeldCall:
        for held in self.calls:
            if held.held_call_id == held_call_id:
                return held
        refuse(context, NotFound(Reason.UNKNOWN_HELD_CALL, "No such call is held."))
        raise AssertionError
