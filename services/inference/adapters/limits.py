"""What one HTTP request may weigh."""

from typing import Any

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from services.inference.adapters import openai_wire as wire

MAX_BODY_BYTES = 2 * 1024 * 1024
TOO_LARGE = f"A request has at most {MAX_BODY_BYTES} bytes."


class LimitedBody:
    """Refuses a body over the limit: at once where its length is told, else as soon as it has come."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """One request."""
        told = next((value for name, value in scope.get("headers", ()) if name == b"content-length"), b"0")
        if told.isdigit() and int(told) > MAX_BODY_BYTES:
            await JSONResponse(wire.error("TOO_LARGE", TOO_LARGE, 413), 413)(scope, receive, send)
            return
        came = 0

        async def limited() -> Any:
            nonlocal came
            message = await receive()
            came += len(message.get("body", b""))
            if came > MAX_BODY_BYTES:
                raise HTTPException(413, TOO_LARGE)
            return message

        await self._app(scope, limited, send)
