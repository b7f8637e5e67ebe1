"""API keys: the list, and for operators creating and revoking them."""

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Form, Request
from fastapi.responses import RedirectResponse, Response

from services.console import handlers
from services.console.domain import GIVEN_ROLES, MAX_NAME_CHARS, KeyTerms, Permission, Role, Visitor
from services.console.lists import people as lists
from services.console.rules import word
from services.console.web.access import Console, ConsoleOf, SignedIn, needs
from tailor.logging import get_logger

log = get_logger(__name__)

router = APIRouter()


@router.get("/keys", dependencies=[Depends(needs(Permission.KEYS))])
def list_keys(request: Request, console: ConsoleOf, visitor: SignedIn, notice: str = "") -> Response:
    """The keys that the visitor may see."""
    return _page(request, console, visitor, revoked=notice == "revoked")


@router.post("/keys", dependencies=[Depends(needs(Permission.MANAGE_KEYS))])
def create_key(  # noqa: PLR0917 - fields of a form
    request: Request,
    console: ConsoleOf,
    visitor: SignedIn,
    name: Annotated[str, Form(max_length=MAX_NAME_CHARS)],
    role: Annotated[Role, Form()],
    specialists: Annotated[list[str], Form(max_length=200)] = [],  # noqa: B006 - FastAPI copies it
    methods: Annotated[str, Form(max_length=2_000)] = "",
    calls_per_minute: Annotated[int, Form()] = 0,
    days: Annotated[int, Form()] = 0,
) -> Response:
    """Create a key. Only this response contains its secret, and it is not cached."""
    names = tuple(methods.replace(",", " ").split())
    terms = KeyTerms(name.strip(), role, tuple(specialists), names, calls_per_minute, days)
    created = handlers.create_key(console.services, visitor, terms)
    log.info("key created", created=created.key.key_id, role=word(created.key, "role"), key_id=visitor.key_id)
    return _page(request, console, visitor, created=created)


@router.post("/keys/{key_id}/revoke", dependencies=[Depends(needs(Permission.MANAGE_KEYS))])
def revoke_key(console: ConsoleOf, visitor: SignedIn, key_id: str) -> Response:
    handlers.revoke_key(console.services, visitor, key_id)
    log.info("key revoked", revoked=key_id, key_id=visitor.key_id)
    return RedirectResponse("/keys?notice=revoked", status_code=303)


def _page(
    request: Request,
    console: Console,
    visitor: Visitor,
    *,
    created: handlers.NewKey | None = None,
    revoked: bool = False,
) -> Response:
    now = datetime.now(UTC)
    answer = lists.list_keys(console.services, visitor, request.query_params, now)
    known = handlers.list_specialists(console.services, visitor)
    return console.renderer.page(
        request,
        "keys.html",
        view=answer.value,
        created=created,
        revoked=revoked,
        now=now,
        roles=GIVEN_ROLES,
        specialists=[item.specialist.name for item in known.value],
        failures=dict.fromkeys(answer.failures + known.failures),
    )
