"""The pages for signing in and out, also by the company's OpenID provider."""

import hmac
import secrets
from typing import Annotated

from fastapi import APIRouter, Form, Query, Request
from fastapi.responses import RedirectResponse, Response

from services.console.adapters.openid import OpenIdClient
from services.console.domain import SignInAttempt, Visitor
from services.console.web.access import Console, ConsoleOf, session_of
from services.console.web.sessions import (
    ATTEMPT_COOKIE,
    ATTEMPT_SECONDS,
    COOKIE,
    LIFETIME_SECONDS,
    BrowserSession,
    begin_session,
)
from tailor.api.registry.v1.people_pb2 import BeginSessionRequest, OpenIdIdentity
from tailor.codec import encode
from tailor.errors import NotFound, PermissionDenied, Reason, ResourceExhausted, TailorError, Unauthenticated
from tailor.logging import get_logger

log = get_logger(__name__)

router = APIRouter()


def set_cookie(request: Request, console: Console, response: Response, session: BrowserSession) -> None:
    """Store the session in the browser's cookie."""
    response.set_cookie(
        COOKIE,
        console.codec.write(session),
        max_age=LIFETIME_SECONDS,
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
        path="/",
    )


def local_path(target: str) -> str:
    """The target if it is a page of the console; otherwise the way to the main page."""
    safe = target.startswith("/") and not target.startswith(("//", "/\\", "/api/", "/login", "/openid/"))
    return target if safe and target.isprintable() else "/"


def login_values(console: Console, next: str) -> dict[str, object]:
    """What the sign-in page shows."""
    return {"next": local_path(next), "by_provider": console.openid is not None}


@router.get("/login")
def show_login(request: Request, console: ConsoleOf, next: str = "/") -> Response:
    session = session_of(request)
    response = console.renderer.page(request, "login.html", 200, error=None, **login_values(console, next))
    set_cookie(request, console, response, session)
    return response


@router.post("/login")
def sign_in(
    request: Request,
    console: ConsoleOf,
    secret: Annotated[str, Form(max_length=512)],
    next: Annotated[str, Form(max_length=512)] = "/",
) -> Response:
    """Sign in with a new session."""
    address = request.client.host if request.client else ""
    try:
        visitor, session = console.authenticator.admit(secret, address)
    except (Unauthenticated, PermissionDenied, ResourceExhausted) as error:
        log.warning("sign-in refused", reason=error.reason)
        return show_refusal(request, console, error, "login.html", **login_values(console, next))
    log.info("signed in", role=visitor.role.value, key_id=visitor.key_id)
    response = RedirectResponse(local_path(next), status_code=303)
    set_cookie(request, console, response, session)
    return response


def show_refusal(request: Request, console: Console, error: TailorError, template: str, **values: object) -> Response:
    """The page of a form that signs in, with the reason why it did not."""
    limited = isinstance(error, ResourceExhausted)
    status = 429 if limited else 401
    response = console.renderer.page(request, template, status, error=error, **values)
    if limited:
        response.headers["Retry-After"] = "60"
    return response


@router.post("/logout")
def sign_out(request: Request, console: ConsoleOf) -> Response:
    """End the session, its streams included, and delete its cookie."""
    console.authenticator.dismiss(session_of(request))
    response = RedirectResponse("/login", status_code=303)
    response.delete_cookie(COOKIE, path="/", httponly=True, samesite="strict")
    return response


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


def _provider(console: Console) -> OpenIdClient:
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


def _sign_in(console: Console, provider: OpenIdClient, attempt: SignInAttempt, code: str) -> tuple[Visitor, str]:
    identity = provider.identify(attempt, code)
    try:
        return begin_session(console.services.people, BeginSessionRequest(identity=encode(OpenIdIdentity, identity)))
    except NotFound as error:
        raise Unauthenticated(Reason.NOT_INVITED, error.message) from None
