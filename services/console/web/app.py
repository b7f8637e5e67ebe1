"""The web application: routes, middleware, and error pages."""

from contextlib import suppress
from functools import cache
from http import HTTPStatus
from pathlib import Path
from threading import BoundedSemaphore
from urllib.parse import quote

from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, RedirectResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import BaseRoute
from starlette.types import ASGIApp

from services.console.adapters.openid import OpenIdClient
from services.console.clients import Services
from services.console.settings import Settings
from services.console.web import actions, judging, login, operations, pages, people, review, rows, runs
from services.console.web.access import Console, check_csrf, console_of, session_of, signed_in
from services.console.web.guard import Guard
from services.console.web.render import Renderer
from services.console.web.sessions import COOKIE, AttemptCodec, SessionAuthenticator, SessionCodec
from services.console.web.streams import Streams
from tailor.errors import InvalidArgument, NotFound, Reason, TailorError, Unauthenticated
from tailor.logging import get_logger, place

log = get_logger(__name__)

# `operations` precedes `pages`, whose `/evaluations/{digest}` would match `/evaluations/compare` too; so does `actions` precede `runs`.
MODULES = (login, operations, pages, rows, actions, runs, people, review, judging)


def create_app(settings: Settings, services: Services, openid: OpenIdClient | None = None) -> ASGIApp:
    """The console over the given services, and the OpenID provider if there is one.

    The guard is outermost, so that it covers error pages too.
    """
    app = FastAPI(title="Tailor", docs_url=None, redoc_url=None, openapi_url=None)
    app.state.console = Console(
        services=services,
        codec=SessionCodec(settings.session_secret),
        attempts=AttemptCodec(settings.session_secret),
        authenticator=SessionAuthenticator(settings.password, services.people),
        renderer=Renderer(),
        streams=Streams(),
        openid=openid,
        second_drafts=BoundedSemaphore(judging.MAX_SECOND_DRAFTS),
    )
    app.mount("/static", StaticFiles(directory=Path(__file__).parent / "static"), name="static")
    app.router.routes.extend(_routes())
    app.add_exception_handler(TailorError, _on_tailor_error)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(RequestValidationError, _on_invalid_request)
    app.add_exception_handler(ClientDisconnect, _on_departure)
    app.add_exception_handler(Exception, _on_fault)
    return Guard(app)


@cache
def _routes() -> tuple[BaseRoute, ...]:
    """The routes of all pages. They keep no state, so that all consoles of a process share them: analysing them takes 0.2 seconds."""
    router = APIRouter(dependencies=[Depends(check_csrf)])
    for module in MODULES:
        router.include_router(module.router)
    return tuple(router.routes)


async def _show_error(request: Request, status: int, reason: str, message: str, fields: dict[str, str]) -> Response:
    session_of(request)
    if request.url.path.startswith("/api/"):
        return JSONResponse({"reason": reason, "message": message, "fields": fields}, status_code=status)
    with suppress(TailorError):
        # For the links of the page. The error may have come before the visitor was known.
        await run_in_threadpool(signed_in, request)
    return console_of(request).renderer.page(
        request, "error.html", status, code=status, reason=reason, message=message, fields=fields
    )


async def _on_tailor_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, TailorError)  # noqa: S101 - registered for this class only
    if isinstance(error, Unauthenticated) and not request.url.path.startswith("/api/"):
        target = request.url.path if request.method == "GET" else "/"
        response: Response = RedirectResponse(f"/login?next={quote(target)}", status_code=303)
        response.delete_cookie(COOKIE, path="/", httponly=True, samesite="strict")
        return response
    return await _show_error(request, error.code.http_status, error.reason, error.message, error.field_violations)


async def _on_http_error(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    if status == HTTPStatus.NOT_FOUND:
        missing = NotFound(Reason.UNKNOWN_PAGE, "This page does not exist.")
        return await _show_error(request, status, missing.reason, missing.message, {})
    return await _show_error(request, status, HTTPStatus(status).name, HTTPStatus(status).phrase, {})


async def _on_invalid_request(request: Request, error: Exception) -> Response:
    problems = error.errors() if isinstance(error, RequestValidationError) else []
    # Show the field and the problem, never the value: it could be a prompt.
    fields = {".".join(str(part) for part in item["loc"][1:]): str(item["msg"]) for item in problems}
    invalid = InvalidArgument(Reason.INVALID_REQUEST, "The request is invalid.")
    return await _show_error(request, 400, invalid.reason, invalid.message, fields)


async def _on_departure(_: Request, __: Exception) -> Response:
    """The browser left before its request had come; nobody reads this answer."""
    return Response(status_code=HTTPStatus.REQUEST_TIMEOUT)


async def _on_fault(request: Request, error: Exception) -> Response:
    log.error("page failed", error=type(error).__name__, at=place(error))
    return await _show_error(request, 500, "INTERNAL", "The console failed. Its log names the error.", {})
