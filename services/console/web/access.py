"""Dependencies of every route: the session, the visitor, and what the visitor may do."""

import hmac
from collections.abc import Callable
from dataclasses import dataclass
from threading import BoundedSemaphore
from typing import Annotated, cast

from fastapi import Depends, Request
from starlette.datastructures import UploadFile

from services.console.adapters.openid import OpenIdClient
from services.console.clients import Services
from services.console.domain import Permission, Visitor
from services.console.web.render import Renderer
from services.console.web.sessions import COOKIE, AttemptCodec, BrowserSession, SessionAuthenticator, SessionCodec
from services.console.web.streams import Streams
from tailor.errors import PermissionDenied, Reason, Unauthenticated

# Forms that are sent before signing in.
OPEN_FORMS = ("/login", "/invitation")


@dataclass(frozen=True)
class Console:
    """What the routes work with."""

    services: Services
    codec: SessionCodec
    attempts: AttemptCodec
    authenticator: SessionAuthenticator
    renderer: Renderer
    streams: Streams
    openid: OpenIdClient | None
    # Places for second drafts that are being written, because each holds a thread.
    second_drafts: BoundedSemaphore


def console_of(request: Request) -> Console:
    return cast(Console, request.app.state.console)


def session_of(request: Request) -> BrowserSession:
    """The browser's session; a new one if its cookie is missing or invalid. Whether it is still open is `signed_in`'s to check."""
    if not hasattr(request.state, "session"):
        read = console_of(request).codec.read(request.cookies.get(COOKIE, ""))
        request.state.session = read or BrowserSession.new()
    return cast(BrowserSession, request.state.session)


async def check_csrf(request: Request) -> None:
    """Raises PermissionDenied for a POST without the session's CSRF token, in the form or in `x-csrf-token`."""
    if request.method != "POST":
        return
    session = session_of(request)
    if not session.secret and request.url.path not in OPEN_FORMS:
        raise Unauthenticated(Reason.NOT_SIGNED_IN, "Sign in first.")
    sent: str | UploadFile | None = request.headers.get("x-csrf-token")
    if sent is None:
        sent = (await request.form()).get("csrf")
    if not isinstance(sent, str) or not hmac.compare_digest(sent.encode(), session.csrf.encode()):
        raise PermissionDenied(Reason.INVALID_CSRF_TOKEN, "The form has expired. Reload the page and try again.")


def signed_in(request: Request) -> Visitor:
    """The visitor. Raises Unauthenticated without a session, or once it has ended: the visitor signed out, or may not sign in any more."""
    visitor = console_of(request).authenticator.refresh(session_of(request))
    request.state.visitor = visitor
    return visitor


def still_signed_in(request: Request) -> Callable[[], None]:
    """A check for streams. Raises Unauthenticated as `signed_in`."""
    authenticator, session = console_of(request).authenticator, session_of(request)

    def check() -> None:
        authenticator.refresh(session)

    return check


ConsoleOf = Annotated[Console, Depends(console_of)]
SignedIn = Annotated[Visitor, Depends(signed_in)]
StillSignedIn = Annotated[Callable[[], None], Depends(still_signed_in)]


def needs(action: Permission) -> Callable[[Visitor], None]:
    """A dependency for a route's decorator. Raises PermissionDenied if the visitor's role does not admit the action."""

    def check_permission(visitor: SignedIn) -> None:
        visitor.require(action)

    return check_permission
