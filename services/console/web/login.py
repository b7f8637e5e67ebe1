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
