"""What one HTTP request may weigh, and how long it may take to come."""

import asyncio
from typing import Any

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from services.inference.adapters import openai_wire as wire
from tailor.errors import Reason

MAX_BODY_BYTES = 2 * 1024 * 1024
BODY_SECONDS = 30.0
TOO_LARGE = f"A request has at most {MAX_BODY_BYTES} bytes."
TOO_SLOW = "The request did not come whole in time."


class LimitedBody:
    """Refuses a body over the limit, at once where its length is told, else as soon as it has come; and one that does not come."""

    def __init__(self, app: Any, body_seconds: float = BODY_SECONDS) -> None:
        self._app = app
        self._body_seconds = body_seconds

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """One request."""
        told = next((value for name, value in scope.get("headers", ()) if name == b"content-length"), b"0")
        if told.isdigit() and int(told) > MAX_BODY_BYTES:
            await JSONResponse(wire.error(Reason.TOO_LARGE, TOO_LARGE, 413), 413)(scope, receive, send)
            return
        came, whole = 0, False
        deadline = asyncio.get_running_loop().time() + self._body_seconds

        async def limited() -> Any:
            nonlocal came, whole
            try:
                # Behind the body comes nothing but that the client goes away, at any time.
                async with asyncio.timeout_at(None if whole else deadline):
                    message = await receive()
            except TimeoutError:
                raise HTTPException(408, TOO_SLOW, {"connection": "close"}) from None
            came += len(message.get("body", b""))
            whole = not message.get("more_body", False)
            if came > MAX_BODY_BYTES:
                raise HTTPException(413, TOO_LARGE)
            return message

        await self._app(scope, limited, send)
