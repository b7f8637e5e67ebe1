"""Counts the calls of the HTTP API in the metrics of gRPC's calls, under the same methods and codes."""

import time
from typing import Any

from starlette.requests import Request

from tailor.errors import Code
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


def note_code(request: Request, code: str) -> None:
    """Remember how a call ends; without it, an answered call ends with OK."""
    request.state.code = code


def note_method(request: Request, method: str) -> None:
    """Remember which method of the contract a call is, if not that of its endpoint."""
    request.state.method = method


class CountedCalls:
    """ASGI middleware that counts and times each call of an endpoint. Requests for unknown paths are not counted."""

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
