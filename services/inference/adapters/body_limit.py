"""Limits on the size of an HTTP request and on the time it may take to arrive."""

import asyncio
from typing import Any

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from services.inference.adapters import openai_wire as wire
from tailor.errors import Reason

MAX_BODY_BYTES = 2 * 1024 * 1024
BODY_SECONDS = 30.0
TOO_LARGE = f"The request body must have at most {MAX_BODY_BYTES} bytes."
TOO_SLOW = f"The request body did not arrive within {BODY_SECONDS:.0f} seconds."


class LimitedBody:
    """ASGI middleware that refuses a body over the limit, by its declared length or as soon as it has arrived, and a slow one."""

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
