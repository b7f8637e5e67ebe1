"""Security headers on every response, and limits on the size and kind of request bodies."""

from collections.abc import MutableMapping
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

MAX_BODY_BYTES = 256 * 1024
NO_PARTS = "Send forms as application/x-www-form-urlencoded.\n"
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Guard:
    """ASGI middleware. Does not buffer streams."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def guarded(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(HEADERS)
                # The browser may store scripts and styles, but must revalidate them.
                headers["Cache-Control"] = "no-cache" if scope["path"].startswith("/static/") else "no-store"
                if scope["scheme"] == "https":
                    headers["Strict-Transport-Security"] = "max-age=31536000"
            await send(message)

        if _too_large(scope):
            await PlainTextResponse("The request is too large.\n", status_code=413)(scope, receive, guarded)
            return
        if _has_parts(scope):
            await PlainTextResponse(NO_PARTS, status_code=415)(scope, receive, guarded)
            return
        await self._app(scope, receive, guarded)


def _too_large(scope: Scope) -> bool:
    headers = dict(scope["headers"])
    length = headers.get(b"content-length", b"0")
    # A body without a content length could have any size; browsers do not send forms that way.
    return b"transfer-encoding" in headers or not length.isdigit() or int(length) > MAX_BODY_BYTES


def _has_parts(scope: Scope) -> bool:
    """True for a form in parts. No page sends one, and its sender chooses how it is decoded: some codecs are very slow."""
    kinds = (value for name, value in scope["headers"] if name == b"content-type")
    return any(value.lstrip().lower().startswith(b"multipart/") for value in kinds)
