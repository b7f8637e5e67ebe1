"""The operators' calls about events in this process, with answers that tests set."""

from typing import Any

from tailor.api.events.v1 import operations_pb2, operations_pb2_grpc


class FakeEvents(operations_pb2_grpc.EventServiceServicer):
    """One dead letter and one unsent event. Stores what an operator does about them."""

    def __init__(self) -> None:
        self.replayed: list[operations_pb2.ReplayDeadLetterRequest] = []
        self.skipped: list[operations_pb2.SkipEventRequest] = []
        self.faults: list[operations_pb2.Fault] = []

    def GetEventStatus(self, request: Any, context: Any) -> Any:
        return operations_pb2.GetEventStatusResponse(faults=self.faults)

    def ListDeadLetters(self, request: Any, context: Any) -> Any:
        letter = operations_pb2.DeadLetter(
            topic="dataset.built.v1",
            partition=0,
            offset=7,
            reason="INCOMPLETE_EVENT",
            message="The event lacks kind.",
            state=operations_pb2.DEAD_LETTER_STATE_DEAD,
        )
        unsent = operations_pb2.DeadLetter(
            topic="run.failed.v1",
            partition=-1,
            offset=-1,
            event_id="evt_9",
            reason="EVENT_TOO_LARGE",
            state=operations_pb2.DEAD_LETTER_STATE_UNSENT,
        )
        return operations_pb2.ListDeadLettersResponse(dead_letters=[unsent, letter])

    def ReplayDeadLetter(self, request: Any, context: Any) -> Any:
        self.replayed.append(request)
        return operations_pb2.ReplayDeadLetterResponse()

    def SkipEvent(self, request: Any, context: Any) -> Any:
        self.skipped.append(request)
        return operations_pb2.SkipEventResponse()
