"""Server-Sent Events from a service's blocking stream."""

import asyncio
import contextlib
import json
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from typing import TypeVar

from fastapi.responses import StreamingResponse

from services.console.ports import CloseableStream
from tailor.errors import Reason, ResourceExhausted, TailorError

T = TypeVar("T")

MAX_STREAMS = 64
QUIET_SECONDS = 10.0

Event = tuple[str, Mapping[str, object]]


def encode(event: Event) -> str:
    """One event in the wire format."""
    name, data = event
    return f"event: {name}\ndata: {json.dumps(data)}\n\n"


class Streams:
    """Opens streams, each in its own thread, up to a limit."""

    def __init__(self, limit: int = MAX_STREAMS) -> None:
        self._places = threading.BoundedSemaphore(limit)

    def respond(self, stream: CloseableStream[T], to_event: Callable[[T], Event]) -> StreamingResponse:
        """The stream as Server-Sent Events; the last one is `end`. Closes the stream when the browser disconnects.

        Raises ResourceExhausted, and closes the stream, at the limit."""
        if not self._places.acquire(blocking=False):
            stream.close()
            raise ResourceExhausted(Reason.TOO_MANY_STREAMS, "Too many pages are streaming. Close some of them.")
        return StreamingResponse(
            self._events(stream, to_event), media_type="text/event-stream", headers={"X-Accel-Buffering": "no"}
        )

    async def _events(self, stream: CloseableStream[T], to_event: Callable[[T], Event]) -> AsyncIterator[str]:
        loop = asyncio.get_running_loop()
        queue: asyncio.Queue[str | None] = asyncio.Queue()

        def put(text: str | None) -> None:
            # When the process stops, the loop is closed and nobody reads the text.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(queue.put_nowait, text)

        def read() -> None:
            try:
                for item in stream:
                    put(encode(to_event(item)))
                put(encode(("end", {})))
            except TailorError as error:
                put(encode(("failure", {"reason": error.reason, "message": error.message})))
            finally:
                put(None)
                self._places.release()

        threading.Thread(target=read, name="stream", daemon=True).start()
        try:
            async for text in _drain(queue):
                yield text
        finally:
            stream.close()


async def _drain(queue: "asyncio.Queue[str | None]") -> AsyncIterator[str]:
    while True:
        try:
            text = await asyncio.wait_for(queue.get(), QUIET_SECONDS)
        except TimeoutError:
            # A comment keeps the connection open, and fails if the browser has disconnected.
            yield ": quiet\n\n"
            continue
        if text is None:
            return
        yield text
