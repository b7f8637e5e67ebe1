"""The pages for signing in and out."""

from typing import Annotated

from fastapi import APIRouter, Form, Request
from fastapi.responses import RedirectResponse, Response

from services.console.web.access import Console, ConsoleOf, session_of
from services.console.web.sessions import COOKIE, LIFETIME_SECONDS, BrowserSession
from tailor.errors import PermissionDenied, ResourceExhausted, TailorError, Unauthenticated
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
    """The target if it is a page of the console; otherwise the first page."""
    safe = target.startswith("/") and not target.startswith(("//", "/\\", "/api/", "/login"))
    return target if safe and target.isprintable() else "/"


@router.get("/login")
def show_login(request: Request, console: ConsoleOf, next: str = "/") -> Response:
    session = session_of(request)
    response = console.renderer.page(request, "login.html", next=local_path(next), error=None)
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
        visitor = console.doorkeeper.admit(secret, address)
    except (Unauthenticated, PermissionDenied, ResourceExhausted) as error:
        log.warning("sign-in refused", reason=error.reason)
        return _show_refusal(request, console, next, error)
    log.info("signed in", role=visitor.role.value, key_id=visitor.key_id)
    response = RedirectResponse(local_path(next), status_code=303)
    set_cookie(request, console, response, BrowserSession.new(visitor, console.sessions.begin()))
    return response


def _show_refusal(request: Request, console: Console, next: str, error: TailorError) -> Response:
    limited = isinstance(error, ResourceExhausted)
    status = 429 if limited else 401
    response = console.renderer.page(request, "login.html", status, next=local_path(next), error=error)
    if limited:
        response.headers["Retry-After"] = "60"
    return response


@router.post("/logout")
def sign_out(request: Request, console: ConsoleOf) -> Response:
    """End the session, its streams included, and delete its cookie."""
    console.sessions.end(session_of(request).id)
    response = RedirectResponse("/login", status_code=303)
    response.delete_cookie(COOKIE, path="/", httponly=True, samesite="strict")
    return response
