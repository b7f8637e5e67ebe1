"""Server-Sent Events from a service's blocking stream."""

import asyncio
import contextlib
import json
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from typing import TypeVar

from fastapi.responses import StreamingResponse

from services.console.domain import Visitor
from tailor.errors import Reason, ResourceExhausted, TailorError, Unauthenticated
from tailor.rpc.channel import CallStream

T = TypeVar("T")

MAX_STREAMS = 64
# One visitor has three quarters of them at most, like one caller at a service.
MAX_STREAMS_PER_VISITOR = 48
# How often it is checked that the visitor is still signed in. A quiet stream then sends a comment, to notice that the browser has left.
CHECK_SECONDS = 1.0

# Events of a stream that wait for the browser; the service then waits, too.
MAX_UNREAD = 256

Event = tuple[str, Mapping[str, object]]


def encode(event: Event) -> str:
    """One event in the wire format."""
    name, data = event
    return f"event: {name}\ndata: {json.dumps(data)}\n\n"


class Streams:
    """Opens streams, each in its own thread, up to a limit for all visitors and one for each of them."""

    def __init__(self, limit: int = MAX_STREAMS, per_visitor: int = MAX_STREAMS_PER_VISITOR) -> None:
        self._limit = limit
        self._per_visitor = per_visitor
        self._open: Counter[str] = Counter()
        self._lock = threading.Lock()

    def respond(
        self,
        visitor: Visitor,
        stream: CallStream[T],
        to_event: Callable[[T], Event],
        still_signed_in: Callable[[], None],
    ) -> StreamingResponse:
        """The stream as Server-Sent Events; the last one is `end`. Closes the stream when the browser disconnects.

        It ends with the event `failure` once `still_signed_in` raises Unauthenticated. Raises ResourceExhausted, and closes the stream,
        at a limit."""
        holder = visitor.key_id or visitor.name
        if not self._take(holder):
            stream.cancel()
            raise ResourceExhausted(Reason.TOO_MANY_STREAMS, "Too many pages are streaming. Close some of them.")
        return StreamingResponse(
            self._events(holder, stream, to_event, still_signed_in),
            media_type="text/event-stream",
            headers={"X-Accel-Buffering": "no"},
        )

    def _take(self, holder: str) -> bool:
        with self._lock:
            if self._open.total() >= self._limit or self._open[holder] >= self._per_visitor:
                return False
            self._open[holder] += 1
            return True

    def _free(self, holder: str) -> None:
        with self._lock:
            self._open[holder] -= 1
            # Empty counts of former visitors are not kept.
            self._open = +self._open

    async def _events(
        self,
        holder: str,
        stream: CallStream[T],
        to_event: Callable[[T], Event],
        still_signed_in: Callable[[], None],
    ) -> AsyncIterator[str]:
        loop = asyncio.get_running_loop()
        queue: asyncio.Queue[str | None] = asyncio.Queue()
        room, is_left = threading.Semaphore(MAX_UNREAD), threading.Event()

        def put(text: str | None) -> None:
            # A browser that reads slowly slows the stream down.
            while not room.acquire(timeout=CHECK_SECONDS):
                if is_left.is_set():
                    return
            # When the process stops, the loop is closed and nobody reads the text.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(queue.put_nowait, text)

        def read() -> None:
            try:
                for item in stream:
                    put(encode(to_event(item)))
                put(encode(("end", {})))
            except TailorError as error:
                put(_failure(error))
            finally:
                self._free(holder)
                put(None)

        threading.Thread(target=read, name="stream", daemon=True).start()
        try:
            async for text in _drain(queue, room, still_signed_in):
                yield text
        finally:
            is_left.set()
            stream.cancel()


async def _drain(
    queue: "asyncio.Queue[str | None]", room: threading.Semaphore, still_signed_in: Callable[[], None]
) -> AsyncIterator[str]:
    now = asyncio.get_running_loop().time
    check_at = now() + CHECK_SECONDS
    while True:
        try:
            text = await asyncio.wait_for(queue.get(), CHECK_SECONDS)
            room.release()
        except TimeoutError:
            text = ": quiet\n\n"
        if text is None:
            return
        if now() >= check_at:
            try:
                await asyncio.to_thread(still_signed_in)
            except Unauthenticated as error:
                yield _failure(error)
                return
            except TailorError:
                # As at the services, a running stream continues while the registry does not answer.
                pass
            check_at = now() + CHECK_SECONDS
        yield text


def _failure(error: TailorError) -> str:
    return encode(("failure", {"reason": error.reason, "message": error.message}))
