"""Dependencies of every route: the session, the visitor, and what the visitor may do."""

import hmac
from collections.abc import Callable
from dataclasses import dataclass
from threading import BoundedSemaphore
from typing import Annotated, cast

from fastapi import Depends, Request
from starlette.datastructures import UploadFile

from services.console.domain import Permission, Visitor
from services.console.ports import Services
from services.console.web.render import Renderer
from services.console.web.sessions import COOKIE, BrowserSession, Doorkeeper, OpenSessions, SessionCodec
from services.console.web.streams import Streams
from tailor.errors import PermissionDenied, Reason, Unauthenticated


@dataclass(frozen=True)
class Console:
    """What the routes work with."""

    services: Services
    codec: SessionCodec
    sessions: OpenSessions
    doorkeeper: Doorkeeper
    renderer: Renderer
    streams: Streams
    # Places for second drafts that are being written, because each holds a thread.
    second_drafts: BoundedSemaphore


def console_of(request: Request) -> Console:
    return cast(Console, request.app.state.console)


def session_of(request: Request) -> BrowserSession:
    """The browser's session; a new one if its cookie is missing or invalid, or its visitor has signed out."""
    if not hasattr(request.state, "session"):
        console = console_of(request)
        session = console.codec.read(request.cookies.get(COOKIE, ""))
        is_over = session is not None and session.visitor is not None and not console.sessions.is_open(session.id)
        request.state.session = BrowserSession.new() if session is None or is_over else session
    return cast(BrowserSession, request.state.session)


async def check_csrf(request: Request) -> None:
    """Raises PermissionDenied for a POST without the session's CSRF token, in the form or in `x-csrf-token`."""
    if request.method != "POST":
        return
    session = session_of(request)
    if session.visitor is None and request.url.path != "/login":
        raise Unauthenticated(Reason.NOT_SIGNED_IN, "Sign in first.")
    sent: str | UploadFile | None = request.headers.get("x-csrf-token")
    if sent is None:
        sent = (await request.form()).get("csrf")
    if not isinstance(sent, str) or not hmac.compare_digest(sent.encode(), session.csrf.encode()):
        raise PermissionDenied(Reason.INVALID_CSRF_TOKEN, "The form has expired. Reload the page and try again.")


def signed_in(request: Request) -> Visitor:
    """The visitor. Raises Unauthenticated without a session, or once the visitor's key is revoked."""
    session = session_of(request)
    if session.visitor is None:
        raise Unauthenticated(Reason.NOT_SIGNED_IN, "Sign in first.")
    visitor = console_of(request).doorkeeper.refresh(session.visitor)
    request.state.visitor = visitor
    return visitor


def still_signed_in(request: Request) -> Callable[[], None]:
    """A check for streams. Raises Unauthenticated once the visitor has signed out, or their key is revoked."""
    console, session = console_of(request), session_of(request)

    def check() -> None:
        if session.visitor is None or not console.sessions.is_open(session.id):
            raise Unauthenticated(Reason.NOT_SIGNED_IN, "You have signed out.")
        console.doorkeeper.refresh(session.visitor)

    return check


ConsoleOf = Annotated[Console, Depends(console_of)]
SignedIn = Annotated[Visitor, Depends(signed_in)]
StillSignedIn = Annotated[Callable[[], None], Depends(still_signed_in)]


def needs(action: Permission) -> Callable[[Visitor], None]:
    """A dependency for a route's decorator. Raises PermissionDenied if the visitor's role does not admit the action."""

    def check_permission(visitor: SignedIn) -> None:
        visitor.require(action)

    return check_permission
