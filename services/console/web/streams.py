"""Server-Sent Events: a blocking stream of a service becomes an answer that goes on as it comes."""

import asyncio
import contextlib
import json
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from typing import TypeVar

from fastapi.responses import StreamingResponse

from services.console.domain import Stream
from tailor.errors import Reason, ResourceExhausted, TailorError

T = TypeVar("T")

MAX_STREAMS = 64
QUIET_SECONDS = 10.0

Event = tuple[str, Mapping[str, object]]


def encode(event: Event) -> str:
    """One event as it goes over the wire."""
    name, data = event
    return f"event: {name}\ndata: {json.dumps(data)}\n\n"


class Streams:
    """Opens streams, each with a thread of its own, up to a limit."""

    def __init__(self, limit: int = MAX_STREAMS) -> None:
        self._places = threading.BoundedSemaphore(limit)

    def respond(self, stream: Stream[T], to_event: Callable[[T], Event]) -> StreamingResponse:
        """The stream as Server-Sent Events, `end` the last; when the browser goes, the stream is closed."""
        if not self._places.acquire(blocking=False):
            stream.close()
            raise ResourceExhausted(Reason.TOO_MANY_STREAMS, "Too many pages watch at once; close some.")
        return StreamingResponse(
            self._events(stream, to_event), media_type="text/event-stream", headers={"X-Accel-Buffering": "no"}
        )

    async def _events(self, stream: Stream[T], to_event: Callable[[T], Event]) -> AsyncIterator[str]:
        loop = asyncio.get_running_loop()
        queue: asyncio.Queue[str | None] = asyncio.Queue()

        def put(text: str | None) -> None:
            # The loop is gone when the process stops; nobody waits for the text then.
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
            # A comment: it shows both ends whether the other is still there.
            yield ": quiet\n\n"
            continue
        if text is None:
            return
        yield text
