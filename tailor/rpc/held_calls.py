"""Four eyes: some calls of data protection are held until another key approves them."""

import json
from collections.abc import Callable

import grpc
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from tailor.api.held.v1 import held_pb2, held_pb2_grpc
from tailor.errors import FailedPrecondition, Reason
from tailor.held_calls import HeldCall, HeldCalls, HeldState
from tailor.logging import get_logger
from tailor.rpc.auth import current_caller
from tailor.rpc.paging import page_size, position
from tailor.wire import from_datetime

log = get_logger(__name__)

Context = grpc.ServicerContext
# Holds a call of a method, or returns if it may be carried out: `FourEyes.check`.
Hold = Callable[[str, Message], None]

DEFAULT_PAGE, MAX_PAGE = 50, 200
STATES = {
    HeldState.WAITING: held_pb2.HELD_CALL_STATE_WAITING,
    HeldState.APPROVED: held_pb2.HELD_CALL_STATE_APPROVED,
    HeldState.DECLINED: held_pb2.HELD_CALL_STATE_DECLINED,
    HeldState.USED: held_pb2.HELD_CALL_STATE_USED,
    HeldState.EXPIRED: held_pb2.HELD_CALL_STATE_EXPIRED,
}


class FourEyes:
    """Holds calls of API keys until a second key approves them. Services that call in their own name are not held."""

    def __init__(self, held_calls: HeldCalls, *, is_on: bool) -> None:
        self._held_calls = held_calls
        self._is_on = is_on

    def check(self, method: str, request: Message) -> None:
        """Return if the call may be carried out. Call it after the request has been checked, and before any effect.

        `request` has a field `held_call_id`. Raises FailedPrecondition: SECOND_PERSON_NEEDED, with the id of the held call, or what
        `HeldCalls.use` raises.
        """
        caller = current_caller()
        if not self._is_on or caller.kind != "key":
            return
        held_call_id, content = _split(request)
        if held_call_id:
            held = self._held_calls.use(held_call_id, method, content, caller.key_id)
            log.info("held call repeated", held_call_id=held_call_id, method=method, decided_by=held.decided_by)
            return
        held = self._held_calls.hold(method, content, caller.key_id)
        log.info("call held", held_call_id=held.held_call_id, method=method, requested_by=caller.key_id)
        raise FailedPrecondition(
            Reason.SECOND_PERSON_NEEDED,
            f"A second person must approve this with `tailor held approve {held.held_call_id}`, within 24 hours and with another key of "
            f"data protection. Then carry it out with `tailor held repeat {held.held_call_id}`.",
            held_call_id=held.held_call_id,
        )


def _split(request: Message) -> tuple[str, str]:
    """The id of the held call, and the rest of the request as JSON."""
    fields = MessageToDict(request, preserving_proto_field_name=True)
    held_call_id = str(fields.pop("held_call_id", ""))
    # Chosen at random by a client for each attempt.
    fields.pop("request_id", None)
    return held_call_id, json.dumps(fields, sort_keys=True, ensure_ascii=False)


class HeldCallServicer(held_pb2_grpc.HeldCallServiceServicer):
    """Translates calls."""

    def __init__(self, held_calls: HeldCalls) -> None:
        self._held_calls = held_calls

    def ListHeldCalls(self, request: held_pb2.ListHeldCallsRequest, context: Context) -> held_pb2.ListHeldCallsResponse:
        size = page_size(request.page_size, DEFAULT_PAGE, MAX_PAGE)
        entries = self._held_calls.list(size + 1, position(request.page_token))
        return held_pb2.ListHeldCallsResponse(
            held_calls=[_from_held_call(held) for _, held in entries[:size]],
            next_page_token=str(entries[size - 1][0]) if len(entries) > size else "",
        )

    def ApproveHeldCall(
        self, request: held_pb2.ApproveHeldCallRequest, context: Context
    ) -> held_pb2.ApproveHeldCallResponse:
        return held_pb2.ApproveHeldCallResponse(held_call=self._decide(request.held_call_id, approve=True))

    def DeclineHeldCall(
        self, request: held_pb2.DeclineHeldCallRequest, context: Context
    ) -> held_pb2.DeclineHeldCallResponse:
        return held_pb2.DeclineHeldCallResponse(held_call=self._decide(request.held_call_id, approve=False))

    def _decide(self, held_call_id: str, *, approve: bool) -> held_pb2.HeldCall:
        held = self._held_calls.decide(held_call_id, current_caller().key_id, approve=approve)
        log.info("held call decided", held_call_id=held_call_id, state=held.state.value, decided_by=held.decided_by)
        return _from_held_call(held)


def _from_held_call(held: HeldCall) -> held_pb2.HeldCall:
    return held_pb2.HeldCall(
        held_call_id=held.held_call_id,
        method=held.method,
        request=held.request,
        requested_by=held.requested_by,
        create_time=from_datetime(held.create_time),
        expire_time=from_datetime(held.expire_time),
        state=STATES[held.state],
        decided_by=held.decided_by,
        decide_time=from_datetime(held.decide_time),
        use_time=from_datetime(held.use_time),
    )
