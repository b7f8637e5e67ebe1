"""ASGI middleware of the HTTP API: limits of a request's body, and the metrics of gRPC's calls under the same methods and codes."""

import asyncio
import time
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse

from services.inference.web import openai_wire as wire
from tailor.errors import Code, Reason
from tailor.telemetry import count_call

SERVICE = "tailor.api.inference.v1.InferenceService"
# The methods of the contract that the endpoints stand for.
METHODS = {
    "models": "ListSpecialists",
    "model": "ListSpecialists",
    "completions": "Generate",
    "feedback": "RecordFeedback",
}
# Codes of the refusals that the web framework makes.
CODES = {405: Code.UNIMPLEMENTED, 408: Code.DEADLINE_EXCEEDED, 413: Code.RESOURCE_EXHAUSTED}
MAX_BODY_BYTES = 2 * 1024 * 1024
BODY_SECONDS = 30.0
TOO_LARGE = f"The request body must have at most {MAX_BODY_BYTES} bytes."
TOO_SLOW = f"The request body did not arrive within {BODY_SECONDS:.0f} seconds."


def note_code(request: Request, code: str) -> None:
    """Remember how a call ends; without it, an answered call ends with OK."""
    request.state.code = code


def note_method(request: Request, method: str) -> None:
    """Remember which method of the contract a call is, if not that of its endpoint."""
    request.state.method = method


class CountedCalls:
    """Counts and times each call of an endpoint. Requests for unknown paths are not counted."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        started, is_gone, is_answered = time.monotonic(), False, False

        async def watched() -> Any:
            nonlocal is_gone
            message = await receive()
            is_gone = is_gone or (message["type"] == "http.disconnect" and not is_answered)
            return message

        async def answering(message: Any) -> None:
            nonlocal is_answered
            await send(message)
            is_answered = message["type"] == "http.response.body" and not message.get("more_body", False)

        try:
            await self._app(scope, watched, answering)
        finally:
            # The router adds these to the scope.
            state, endpoint = scope.get("state", {}), getattr(scope.get("endpoint"), "__name__", "")
            method = state.get("method", METHODS.get(endpoint))
            code = state.get("code") or ("CANCELLED" if is_gone else "OK" if is_answered else "INTERNAL")
            if method:
                count_call(f"{SERVICE}.{method}", code, time.monotonic() - started)


class LimitedBody:
    """Refuses a body over the limit, by its declared length or as soon as it has arrived, and a slow one."""

    def __init__(self, app: Any, body_seconds: float = BODY_SECONDS) -> None:
        self._app = app
        self._body_seconds = body_seconds

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        length = next((value for name, value in scope.get("headers", ()) if name == b"content-length"), b"0")
        if length.isdigit() and int(length) > MAX_BODY_BYTES:
            await JSONResponse(wire.error(Reason.TOO_LARGE, TOO_LARGE, 413), 413)(scope, receive, send)
            return
        size, is_whole = 0, False
        deadline = asyncio.get_running_loop().time() + self._body_seconds

        async def limited() -> Any:
            nonlocal size, is_whole
            try:
                # After the body only a disconnect can arrive, at any time.
                async with asyncio.timeout_at(None if is_whole else deadline):
                    message = await receive()
            except TimeoutError:
                raise HTTPException(408, TOO_SLOW, {"connection": "close"}) from None
            size += len(message.get("body", b""))
            is_whole = not message.get("more_body", False)
            if size > MAX_BODY_BYTES:
                raise HTTPException(413, TOO_LARGE)
            return message

        await self._app(scope, limited, send)
