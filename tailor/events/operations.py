"""The EventService of every service: what does not work, dead letters, replay, skip. An operator needs no Kafka credentials for it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import grpc

from tailor.api.events.v1 import operations_pb2, operations_pb2_grpc
from tailor.codec import encode
from tailor.errors import InvalidArgument, NotFound, Reason, ResourceExhausted, Unavailable
from tailor.events.consumer import Handler
from tailor.events.dead_letters import EventPlace, Letter, SqlDeadLetters
from tailor.events.envelope import Event
from tailor.events.faults import Faults
from tailor.events.lag import LagMonitor
from tailor.events.outbox import Outbox, UnsentEvent
from tailor.rpc.auth import current_caller
from tailor.rpc.paging import offset, page_size

Context = grpc.ServicerContext
ReadEvent = Callable[[EventPlace], Event]

DEFAULT_PAGE, MAX_PAGE = 100, 500
MAX_REASON = 500


@dataclass
class EventParts:
    """The parts of a service that the calls reach. The runtime adds them as it makes them."""

    faults: Faults
    watch: LagMonitor | None = None
    letters: SqlDeadLetters | None = None
    outbox: Outbox | None = None
    read: ReadEvent | None = None
    handlers: Mapping[str, Handler] = field(default_factory=dict)


class EventServicer(operations_pb2_grpc.EventServiceServicer):
    """Translates calls. A service without a database has no dead letters."""

    def __init__(self, parts: EventParts) -> None:
        self._parts = parts

    def GetEventStatus(
        self, request: operations_pb2.GetEventStatusRequest, context: Context
    ) -> operations_pb2.GetEventStatusResponse:
        backlogs = self._parts.watch.backlogs() if self._parts.watch else ()
        return operations_pb2.GetEventStatusResponse(
            faults=[encode(operations_pb2.Fault, fault) for fault in self._parts.faults.all()],
            backlogs=[encode(operations_pb2.Backlog, item) for item in backlogs],
        )

    def ListDeadLetters(
        self, request: operations_pb2.ListDeadLettersRequest, context: Context
    ) -> operations_pb2.ListDeadLettersResponse:
        size = page_size(request.page_size, DEFAULT_PAGE, MAX_PAGE)
        start = offset(request.page_token)
        outbox, letters = self._parts.outbox, self._parts.letters
        unsent = [_unsent(item) for item in outbox.unsent(MAX_PAGE)] if outbox and start == 0 else []
        kept = letters.list(size + 1, start, include_closed=request.include_closed) if letters else []
        return operations_pb2.ListDeadLettersResponse(
            dead_letters=[*unsent, *map(from_letter, kept[:size])],
            next_page_token=str(start + size) if len(kept) > size else "",
        )

    def ReplayDeadLetter(
        self, request: operations_pb2.ReplayDeadLetterRequest, context: Context
    ) -> operations_pb2.ReplayDeadLetterResponse:
        if request.event_id:
            if self._parts.outbox is None:
                raise NotFound(Reason.UNKNOWN_EVENT, "This service has no outbox.")
            self._parts.outbox.resend(request.event_id)
            return operations_pb2.ReplayDeadLetterResponse()
        letters, place = self._letters(), self._place(request)
        letters.find(place)
        if self._parts.read is None:
            raise Unavailable(Reason.NOT_CAUGHT_UP, "The service does not consume yet. Retry in a moment.")
        self._parts.handlers[place.topic](self._parts.read(place))
        letter = letters.mark_replayed(place, current_caller().key_id)
        return operations_pb2.ReplayDeadLetterResponse(dead_letter=from_letter(letter))

    def SkipEvent(self, request: operations_pb2.SkipEventRequest, context: Context) -> operations_pb2.SkipEventResponse:
        reason = request.reason.strip()
        if not 0 < len(reason) <= MAX_REASON or "\0" in reason:
            problem = f"must have 1 to {MAX_REASON} characters"
            raise InvalidArgument(Reason.INVALID_REASON, f"`reason` {problem}.", field_violations={"reason": problem})
        letter = self._letters().skip(self._place(request), reason, current_caller().key_id)
        return operations_pb2.SkipEventResponse(dead_letter=from_letter(letter))

    def _letters(self) -> SqlDeadLetters:
        if self._parts.letters is None:
            raise NotFound(Reason.UNKNOWN_EVENT, "This service keeps no dead letters.")
        return self._parts.letters

    def _place(self, request: Any) -> EventPlace:
        """The event that a request names. Raises NotFound (UNKNOWN_TOPIC) for a topic that the service does not consume."""
        if request.topic not in self._parts.handlers:
            known = ", ".join(sorted(self._parts.handlers)) or "none yet"
            raise NotFound(Reason.UNKNOWN_TOPIC, f"This service consumes no topic of that name. Its topics: {known}.")
        if request.partition < 0 or request.offset < 0:
            raise InvalidArgument(Reason.INVALID_ARGUMENT, "`partition` and `offset` must not be negative.")
        return EventPlace(request.topic, request.partition, request.offset)


def from_letter(letter: Letter) -> operations_pb2.DeadLetter:
    return encode(operations_pb2.DeadLetter, letter, **vars(letter.place))


def _unsent(item: UnsentEvent) -> operations_pb2.DeadLetter:
    return encode(
        operations_pb2.DeadLetter,
        item,
        partition=-1,
        offset=-1,
        message="The broker does not take the event. Raise the topic's `max.message.bytes`, then replay it.",
        state=operations_pb2.DEAD_LETTER_STATE_UNSENT,
    )


# The share of its retention that the oldest unhandled event may have used before new documents have to wait for it.
MAX_RETENTION_USED = 0.75
MAX_WAITING_EVENTS = 20_000
RETRY_SECONDS = 30.0


class Backpressure:
    """Admits documents while events flow."""

    def __init__(self, parts: EventParts) -> None:
        self._parts = parts

    def admit(self) -> None:
        """Raise ResourceExhausted (BACKLOG_TOO_OLD or TOO_MUCH_WAITS), with the time to wait, while a backlog must go first."""
        used = self._parts.watch.retention_used() if self._parts.watch else 0.0
        if used >= MAX_RETENTION_USED:
            raise ResourceExhausted(
                Reason.BACKLOG_TOO_OLD,
                f"Documents wait so long that the oldest have used {used:.0%} of their retention. Retry later, or add replicas.",
                retry_after_seconds=RETRY_SECONDS,
            )
        waiting = self._parts.outbox.waiting if self._parts.outbox else 0
        if waiting >= MAX_WAITING_EVENTS:
            raise ResourceExhausted(
                Reason.TOO_MUCH_WAITS,
                f"{waiting:,} events wait for the Kafka broker. Retry when it works again.",
                retry_after_seconds=RETRY_SECONDS,
            )
