"""A specialist's whole definition as the text of a TOML file: to define one, and to change every field of one."""

from typing import Annotated, Any
from urllib.parse import quote

import tomli_w
from fastapi import APIRouter, Depends, Form, Request
from fastapi.responses import RedirectResponse, Response

from services.console import handlers, operations
from services.console.domain import MAX_DEFINITION_CHARS, Permission
from services.console.web.access import Console, ConsoleOf, SignedIn, needs
from tailor.api.events.v1.models_pb2 import SpecialistChanged
from tailor.cli.definitions import parse_definition, to_fields
from tailor.errors import Aborted, AlreadyExists, InvalidArgument, Reason
from tailor.logging import get_logger

log = get_logger(__name__)

router = APIRouter()

MANAGING = [Depends(needs(Permission.MANAGE_SPECIALISTS))]
Definition = Annotated[str, Form(max_length=MAX_DEFINITION_CHARS)]
Attempt = Annotated[str, Form(min_length=8, max_length=64)]
Revision = Annotated[int, Form(ge=0)]
# The fields without a default.
TEMPLATE = """# All fields and their defaults: docs/registry/specialist.toml.
name = ""
description = ""
base = "{base}"
recipe = "lora"
keep_drafts = true

# Which documents it learns from. An empty list admits any.
[selection]
sources = []
departments = []
confidentialities = []

# When a dataset is built. Without it, on command only.
[rebuild]
min_new_items = 40
quiet_seconds = 60
min_interval_seconds = 3600
"""


@router.get("/new-specialist", dependencies=MANAGING)
def show_new(request: Request, console: ConsoleOf, visitor: SignedIn) -> Response:
    """The form of a new specialist."""
    known = handlers.list_specialists(console.services, visitor)
    base = known.value[0].specialist.base if known.value else ""
    return _show(request, console, text=TEMPLATE.format(base=base), failures=known.failures)


@router.post("/specialists", dependencies=MANAGING)
def create(
    request: Request, console: ConsoleOf, visitor: SignedIn, definition: Definition, attempt: Attempt
) -> Response:
    """Define a specialist. An invalid text is shown again with what is wrong."""
    try:
        message = parse_definition(definition, "The definition")
        created = operations.create_specialist(console.services, visitor, message, attempt)
    except (AlreadyExists, InvalidArgument) as problem:
        return _show_problem(request, console, problem, text=definition)
    log.info("specialist created", specialist=message.name, created=created, key_id=visitor.key_id)
    notice = "created" if created else "existed"
    return RedirectResponse(f"/specialists/{quote(message.name)}?notice={notice}", status_code=303)


@router.get("/specialists/{name}/definition", dependencies=MANAGING)
def show_current(request: Request, console: ConsoleOf, visitor: SignedIn, name: str) -> Response:
    """The current definition as text."""
    current = operations.get_specialist(console.services, visitor, name).specialist
    return _show(request, console, name=name, text=tomli_w.dumps(to_fields(current)), revision=current.revision)


@router.post("/specialists/{name}/definition/preview", dependencies=MANAGING)
def preview(  # noqa: PLR0917 - fields of a form
    request: Request, console: ConsoleOf, visitor: SignedIn, name: str, definition: Definition, revision: Revision
) -> Response:
    """The text with what it would change, field by field; saves nothing."""
    try:
        message = _read(definition, name, revision)
        answer = operations.update_specialist(console.services, visitor, message, validate_only=True)
    except (Aborted, InvalidArgument) as problem:
        return _show_problem(request, console, problem, name=name, text=definition, revision=revision)
    return _show(request, console, name=name, text=definition, revision=revision, changes=list(answer.changes))


@router.post("/specialists/{name}/definition", dependencies=MANAGING)
def save(  # noqa: PLR0917 - fields of a form
    request: Request, console: ConsoleOf, visitor: SignedIn, name: str, definition: Definition, revision: Revision
) -> Response:
    """Save the text as the next revision."""
    try:
        message = _read(definition, name, revision)
        operations.update_specialist(console.services, visitor, message, validate_only=False)
    except (Aborted, InvalidArgument) as problem:
        return _show_problem(request, console, problem, name=name, text=definition, revision=revision)
    log.info("specialist updated", specialist=name, key_id=visitor.key_id)
    return RedirectResponse(f"/specialists/{quote(name)}?notice=updated", status_code=303)


def _read(text: str, name: str, revision: int) -> SpecialistChanged:
    """Raises InvalidArgument for a text that cannot be read, or that defines another specialist."""
    message = parse_definition(text, "The definition")
    if message.name != name:
        field = {"name": f"must be {name}; a specialist cannot be renamed"}
        raise InvalidArgument(Reason.INVALID_SPECIALIST, "The text defines another specialist.", field_violations=field)
    # Somebody may have changed it since the page was shown.
    message.revision = revision
    return message


def _show(request: Request, console: Console, status: int = 200, **values: Any) -> Response:
    defaults = {"name": "", "text": "", "revision": 0, "changes": None, "error": "", "fields": {}}
    return console.renderer.page(request, "definition_text.html", status, **(defaults | values))


def _show_problem(
    request: Request, console: Console, problem: Aborted | AlreadyExists | InvalidArgument, **values: Any
) -> Response:
    status, error, fields = problem.code.http_status, problem.message, problem.field_violations
    return _show(request, console, status, error=error, fields=fields, **values)
