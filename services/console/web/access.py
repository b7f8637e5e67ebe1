"""Who asks, and whether they may: the dependencies that every route stands behind."""

import hmac
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, cast

from fastapi import Depends, Request
from starlette.datastructures import UploadFile

from services.console.domain import Action, Services, Visitor
from services.console.web.render import Renderer
from services.console.web.sessions import COOKIE, Doorkeeper, Session, SessionCodec
from services.console.web.streams import Streams
from tailor.errors import PermissionDenied, Reason, Unauthenticated


@dataclass(frozen=True)
class Console:
    """What the routes work with."""

    services: Services
    codec: SessionCodec
    doorkeeper: Doorkeeper
    renderer: Renderer
    streams: Streams


def console_of(request: Request) -> Console:
    """The console that serves the request."""
    return cast(Console, request.app.state.console)


def session_of(request: Request) -> Session:
    """The browser's session; a new one where it has none that verifies."""
    if not hasattr(request.state, "session"):
        cookie = request.cookies.get(COOKIE, "")
        request.state.session = console_of(request).codec.read(cookie) or Session.new()
    return cast(Session, request.state.session)


async def refuse_forged(request: Request) -> None:
    """PermissionDenied for a POST without the session's own CSRF token, in the form or in `x-csrf-token`."""
    if request.method != "POST":
        return
    session = session_of(request)
    if session.visitor is None and request.url.path != "/login":
        raise Unauthenticated(Reason.NOT_SIGNED_IN, "Sign in first.")
    sent: str | UploadFile | None = request.headers.get("x-csrf-token")
    if sent is None:
        sent = (await request.form()).get("csrf")
    if not isinstance(sent, str) or not hmac.compare_digest(sent.encode(), session.csrf.encode()):
        raise PermissionDenied(Reason.INVALID_CSRF_TOKEN, "The form is too old or not ours; load the page again.")


def signed_in(request: Request) -> Visitor:
    """The visitor; Unauthenticated where nobody is signed in."""
    session = session_of(request)
    if session.visitor is None:
        raise Unauthenticated(Reason.NOT_SIGNED_IN, "Sign in first.")
    visitor = console_of(request).doorkeeper.still(session.visitor)
    request.state.visitor = visitor
    return visitor


def needs(action: Action) -> Callable[[Visitor], Visitor]:
    """A dependency: the visitor, if their role admits the action; PermissionDenied otherwise."""

    def admitted(visitor: Annotated[Visitor, Depends(signed_in)]) -> Visitor:
        visitor.need(action)
        return visitor

    return admitted


ConsoleOf = Annotated[Console, Depends(console_of)]
SignedIn = Annotated[Visitor, Depends(signed_in)]
