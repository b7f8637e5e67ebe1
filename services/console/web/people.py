"""People and API keys: the lists, inviting, creating and removing for operators, and accepting an invitation."""

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Form, Request
from fastapi.responses import RedirectResponse, Response

from services.console import handlers, operations
from services.console.domain import (
    GIVEN_ROLES,
    MAX_MAIL_CHARS,
    MAX_NAME_CHARS,
    InvitationTerms,
    KeyTerms,
    Permission,
    Role,
    Visitor,
)
from services.console.lists import people as lists
from services.console.rules import word
from services.console.web.access import Console, ConsoleOf, SignedIn, needs, session_of
from services.console.web.login import set_cookie, show_refusal
from services.console.web.sessions import MAX_SECRET_CHARS, sha256
from tailor.api.registry.v1.people_pb2 import (
    AcceptInvitationRequest,
    AcceptInvitationResponse,
    InvitePersonResponse,
    RenewInvitationResponse,
)
from tailor.errors import NotFound, Reason, ResourceExhausted, Unauthenticated
from tailor.logging import get_logger

log = get_logger(__name__)

router = APIRouter()

Invitation = InvitePersonResponse | RenewInvitationResponse


@router.get("/people", dependencies=[Depends(needs(Permission.PEOPLE))])
def list_people(request: Request, console: ConsoleOf, visitor: SignedIn, notice: str = "") -> Response:
    """The people whom the visitor may see."""
    return _show_people(request, console, visitor, removed=notice == "removed")


@router.post("/people", dependencies=[Depends(needs(Permission.PEOPLE))])
def invite(  # noqa: PLR0917 - fields of a form
    request: Request,
    console: ConsoleOf,
    visitor: SignedIn,
    name: Annotated[str, Form(max_length=MAX_NAME_CHARS)],
    role: Annotated[Role, Form()],
    mail: Annotated[str, Form(max_length=MAX_MAIL_CHARS)] = "",
    specialists: Annotated[list[str], Form(max_length=100)] = [],  # noqa: B006 - FastAPI copies it
    days: Annotated[int, Form()] = 0,
) -> Response:
    """Invite a person. Only this response contains the code, and it is not cached."""
    terms = InvitationTerms(name.strip(), role, mail.strip(), tuple(specialists), days)
    invitation = operations.invite_person(console.services, visitor, terms)
    person = invitation.person
    log.info("person invited", person_id=person.person_id, role=word(person, "role"), key_id=visitor.key_id)
    return _show_people(request, console, visitor, invitation=invitation)


@router.post("/people/{person_id}/renew", dependencies=[Depends(needs(Permission.PEOPLE))])
def renew(request: Request, console: ConsoleOf, visitor: SignedIn, person_id: str) -> Response:
    """Invite a person again. Only this response contains the code, and it is not cached."""
    invitation = operations.renew_invitation(console.services, visitor, person_id)
    log.info("person invited again", person_id=person_id, key_id=visitor.key_id)
    return _show_people(request, console, visitor, invitation=invitation)


@router.post("/people/{person_id}/remove", dependencies=[Depends(needs(Permission.PEOPLE))])
def remove(console: ConsoleOf, visitor: SignedIn, person_id: str) -> Response:
    operations.remove_person(console.services, visitor, person_id)
    log.info("person removed", person_id=person_id, key_id=visitor.key_id)
    return RedirectResponse("/people?notice=removed", status_code=303)


def _show_people(
    request: Request,
    console: Console,
    visitor: Visitor,
    *,
    invitation: Invitation | None = None,
    removed: bool = False,
) -> Response:
    now = datetime.now(UTC)
    answer = lists.list_people(console.services, visitor, request.query_params)
    known = handlers.list_specialists(console.services, visitor)
    return console.renderer.page(
        request,
        "people.html",
        view=answer.value,
        invitation=invitation,
        link=_link(request, invitation),
        removed=removed,
        by_provider=console.openid is not None,
        now=now,
        roles=GIVEN_ROLES,
        specialists=[item.specialist.name for item in known.value],
        failures=dict.fromkeys(answer.failures + known.failures),
    )


def _link(request: Request, invitation: Invitation | None) -> str:
    """The link of an invitation with a code, which is after `#`: browsers do not send that part, so no proxy and no log sees it."""
    code = invitation.code if invitation else ""
    return f"{request.url.scheme}://{request.url.netloc}/invitation#{code}" if code else ""


@router.get("/invitation")
def show_invitation(request: Request, console: ConsoleOf) -> Response:
    """The form for an invitation's code, which the page's script takes from the link."""
    session = session_of(request)
    response = console.renderer.page(request, "invitation.html", error=None)
    set_cookie(request, console, response, session)
    return response


@router.post("/invitation")
def accept_invitation(
    request: Request, console: ConsoleOf, code: Annotated[str, Form(max_length=MAX_SECRET_CHARS)]
) -> Response:
    """Show the person their secret, once, with a form that signs in with it. The response is not cached."""
    address = request.client.host if request.client else ""
    try:
        with console.authenticator.throttle.attempt(address):
            accepted = _accept(console, code)
    except (Unauthenticated, ResourceExhausted) as error:
        log.warning("invitation refused", reason=error.reason)
        return show_refusal(request, console, error, "invitation.html")
    log.info("invitation accepted", person_id=accepted.person.person_id)
    return console.renderer.page(request, "welcome.html", person=accepted.person, secret=accepted.secret)


def _accept(console: Console, code: str) -> AcceptInvitationResponse:
    try:
        return console.services.people.AcceptInvitation(AcceptInvitationRequest(code_sha256=sha256(code.strip())))
    except NotFound as error:
        raise Unauthenticated(Reason.UNKNOWN_INVITATION, error.message) from None


@router.get("/keys", dependencies=[Depends(needs(Permission.KEYS))])
def list_keys(request: Request, console: ConsoleOf, visitor: SignedIn, notice: str = "") -> Response:
    """The keys that the visitor may see."""
    return _show_keys(request, console, visitor, revoked=notice == "revoked")


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
    return _show_keys(request, console, visitor, created=created)


@router.post("/keys/{key_id}/revoke", dependencies=[Depends(needs(Permission.MANAGE_KEYS))])
def revoke_key(console: ConsoleOf, visitor: SignedIn, key_id: str) -> Response:
    handlers.revoke_key(console.services, visitor, key_id)
    log.info("key revoked", revoked=key_id, key_id=visitor.key_id)
    return RedirectResponse("/keys?notice=revoked", status_code=303)


def _show_keys(
    request: Request,
    console: Console,
    visitor: Visitor,
    *,
    created: handlers.NewKey | None = None,
    revoked: bool = False,
) -> Response:
    now = datetime.now(UTC)
    answer = lists.list_keys(console.services, visitor, request.query_params)
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
