"""Signing in by the company's OpenID provider: to the provider, and back."""

import hmac
import secrets
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import RedirectResponse, Response

from services.console.domain import SignInAttempt, Visitor
from services.console.ports import OpenIdProvider
from services.console.web.access import Console, ConsoleOf, session_of
from services.console.web.login import local_path, login_values, set_cookie, show_refusal
from services.console.web.sessions import ATTEMPT_COOKIE, ATTEMPT_SECONDS, BrowserSession, begin_session
from tailor.api.registry.v1.people_pb2 import BeginSessionRequest, OpenIdIdentity
from tailor.codec import encode
from tailor.errors import NotFound, Reason, ResourceExhausted, Unauthenticated
from tailor.logging import get_logger

log = get_logger(__name__)

router = APIRouter()


@router.get("/openid/begin")
def begin(request: Request, console: ConsoleOf, next: Annotated[str, Query(max_length=512)] = "/") -> Response:
    """Send the browser to the provider."""
    attempt = SignInAttempt(
        secrets.token_urlsafe(24), secrets.token_urlsafe(24), secrets.token_urlsafe(48), local_path(next)
    )
    response = RedirectResponse(_provider(console).authorize(attempt), status_code=303)
    response.set_cookie(
        ATTEMPT_COOKIE,
        console.attempts.write(attempt),
        max_age=ATTEMPT_SECONDS,
        httponly=True,
        # Strict cookies are not sent when the provider sends the browser back.
        samesite="lax",
        secure=request.url.scheme == "https",
        path="/openid",
    )
    return response


@router.get("/openid/callback")
def come_back(
    request: Request,
    console: ConsoleOf,
    code: Annotated[str, Query(max_length=4096)] = "",
    state: Annotated[str, Query(max_length=512)] = "",
) -> Response:
    """Begin a session for the user of the provider who comes back."""
    provider, attempt = _provider(console), console.attempts.read(request.cookies.get(ATTEMPT_COOKIE, ""))
    address = request.client.host if request.client else ""
    try:
        with console.authenticator.throttle.attempt(address):
            checked = _check(attempt, code, state)
            visitor, secret = _sign_in(console, provider, checked, code)
    except (Unauthenticated, ResourceExhausted) as error:
        log.warning("sign-in refused", reason=error.reason)
        session_of(request)
        # The browser sent no strict cookie, which a form on this page would need.
        response = show_refusal(request, console, error, "login.html", returned=True, **login_values(console, "/"))
    else:
        log.info("signed in", role=visitor.role.value, key_id=visitor.key_id)
        session_of(request)
        # A page, not a redirect: browsers send a strict cookie only with requests that a page of the console began.
        response = console.renderer.page(request, "signed_in.html", next=checked.next)
        set_cookie(request, console, response, BrowserSession.new(secret))
    response.delete_cookie(ATTEMPT_COOKIE, path="/openid", httponly=True, samesite="lax")
    return response


def _provider(console: Console) -> OpenIdProvider:
    if console.openid is None:
        raise NotFound(Reason.UNKNOWN_PAGE, "This page does not exist.")
    return console.openid


def _check(attempt: SignInAttempt | None, code: str, state: str) -> SignInAttempt:
    """The attempt that the answer belongs to. Raises Unauthenticated for an answer to another browser's attempt, or to none."""
    if attempt is None or not hmac.compare_digest(attempt.state.encode(), state.encode()):
        raise Unauthenticated(
            Reason.INVALID_SIGN_IN, "This sign-in was begun in another browser, or took too long. Start again."
        )
    if not code:
        raise Unauthenticated(
            Reason.INVALID_SIGN_IN, "The provider refused the sign-in. Start again, or ask an operator."
        )
    return attempt


def _sign_in(console: Console, provider: OpenIdProvider, attempt: SignInAttempt, code: str) -> tuple[Visitor, str]:
    identity = provider.identify(attempt, code)
    try:
        return begin_session(console.services.people, BeginSessionRequest(identity=encode(OpenIdIdentity, identity)))
    except NotFound as error:
        raise Unauthenticated(Reason.NOT_INVITED, error.message) from None
