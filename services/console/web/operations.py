"""Pages and commands of operators, and comparisons: definitions as a form and as text, overrides, approvals and leaderboards."""

from typing import Annotated, Any
from urllib.parse import quote

import tomli_w
from fastapi import APIRouter, Depends, Form, Query, Request
from fastapi.responses import RedirectResponse, Response

from services.console import handlers, operations
from services.console.domain import MAX_COMMENT_CHARS, MAX_DEFINITION_CHARS, MAX_REASON_CHARS, Permission
from services.console.handlers import ServiceFailure
from services.console.lists import training as lists
from services.console.web.access import Console, ConsoleOf, SignedIn, needs
from services.console.web.definition_form import DefinitionForm, add_proposals, to_definition, to_form
from services.console.web.render import metric as to_title
from tailor.api.evaluation.v1.evaluation_pb2 import ComparedModel, CompareEvaluationsRequest
from tailor.api.events.v1.models_pb2 import SpecialistChanged
from tailor.cli.definitions import parse_definition, to_fields
from tailor.errors import Aborted, AlreadyExists, FailedPrecondition, InvalidArgument, Reason
from tailor.logging import get_logger

log = get_logger(__name__)

router = APIRouter()

MANAGING = [Depends(needs(Permission.MANAGE_SPECIALISTS))]
Name = Annotated[str, Form(max_length=63)]
Digest = Annotated[str, Form(max_length=64)]
WrittenReason = Annotated[str, Form(max_length=MAX_REASON_CHARS)]
Line = Annotated[str, Query(max_length=MAX_COMMENT_CHARS)]
FormOf = Annotated[DefinitionForm, Form()]
Text = Annotated[str, Query(max_length=200)]
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


@router.get("/specialists/{name}/edit", dependencies=MANAGING)
def edit(  # noqa: PLR0917 - fields of a query
    request: Request, console: ConsoleOf, visitor: SignedIn, name: str, guideline: Line = "", criterion: Line = ""
) -> Response:
    """The form of a specialist's definition; a guideline and a criterion of the judge model are added to what it has."""
    current = operations.get_specialist(console.services, visitor, name).specialist
    form = add_proposals(to_form(current), guideline, criterion)
    return console.renderer.page(request, "definition.html", name=name, form=form, changes=None, error="", fields={})


@router.get("/specialists/{name}/guidelines", dependencies=MANAGING)
def guidelines(request: Request, console: ConsoleOf, visitor: SignedIn, name: str) -> Response:
    """What experts' comments ask for again and again, and what became of the comments."""
    proposed = operations.propose_guidelines(console.services, visitor, name)
    counts = operations.count_comments(console.services, visitor, name)
    return console.renderer.page(
        request,
        "guidelines.html",
        name=name,
        proposed=proposed.value,
        counts=counts.value,
        failures=dict.fromkeys(proposed.failures + counts.failures),
    )


@router.post("/specialists/{name}/preview", dependencies=MANAGING)
def preview(request: Request, console: ConsoleOf, visitor: SignedIn, name: str, form: FormOf) -> Response:
    """The form with what it would change, field by field; saves nothing."""
    return _update(request, console, visitor, name, form, validate_only=True)


@router.post("/specialists/{name}/edit", dependencies=MANAGING)
def save(request: Request, console: ConsoleOf, visitor: SignedIn, name: str, form: FormOf) -> Response:
    """Save the form. An invalid one is shown again with what is wrong."""
    return _update(request, console, visitor, name, form, validate_only=False)


def _update(
    request: Request, console: ConsoleOf, visitor: SignedIn, name: str, form: DefinitionForm, *, validate_only: bool
) -> Response:
    current = operations.get_specialist(console.services, visitor, name).specialist
    changes, error, fields, status = None, "", {}, 200
    try:
        definition = to_definition(form, current)
        answer = operations.update_specialist(console.services, visitor, definition, validate_only=validate_only)
        changes = list(answer.changes)
    except (Aborted, InvalidArgument) as problem:
        error, fields, status = problem.message, problem.field_violations, problem.code.http_status
    if not validate_only and not error:
        log.info("specialist updated", specialist=name, key_id=visitor.key_id)
        return RedirectResponse(f"/specialists/{quote(name)}?notice=updated", status_code=303)
    return console.renderer.page(
        request, "definition.html", status, name=name, form=form, changes=changes, error=error, fields=fields
    )


@router.post("/specialists/{name}/delete", dependencies=MANAGING)
def delete(console: ConsoleOf, visitor: SignedIn, name: str, reason: WrittenReason = "") -> Response:
    """Delete a specialist."""
    operations.delete_specialist(console.services, visitor, name, reason)
    log.info("specialist deleted", specialist=name, key_id=visitor.key_id)
    return RedirectResponse("/specialists?notice=deleted", status_code=303)


@router.post("/override", dependencies=[Depends(needs(Permission.PROMOTE))])
def override(  # noqa: PLR0917 - fields of a form
    console: ConsoleOf,
    visitor: SignedIn,
    specialist: Name,
    adapter_digest: Digest,
    expected_generation: Annotated[int, Form(ge=0)],
    reason: WrittenReason,
) -> Response:
    """Make an adapter serve although it did not pass the gate."""
    serving = operations.override(console.services, visitor, specialist, adapter_digest, expected_generation, reason)
    log.info("gate overridden", specialist=specialist, generation=serving.generation, key_id=visitor.key_id)
    return RedirectResponse(f"/specialists/{quote(specialist)}?notice=promoted", status_code=303)


@router.get("/approvals", dependencies=[Depends(needs(Permission.ADAPTERS))])
def approvals(request: Request, console: ConsoleOf, visitor: SignedIn, notice: str = "") -> Response:
    """Adapters that wait for approval, with the figures that decide."""
    answer = lists.list_approvals(console.services, visitor, request.query_params)
    return console.renderer.page(request, "approvals.html", view=answer.value, notice=notice, failures=answer.failures)


@router.post("/approve", dependencies=[Depends(needs(Permission.PROMOTE))])
def approve(console: ConsoleOf, visitor: SignedIn, adapter_digest: Digest, reason: WrittenReason = "") -> Response:
    """Let a waiting adapter serve, or start its canary."""
    serving = operations.approve(console.services, visitor, adapter_digest, reason)
    log.info("adapter approved", adapter=adapter_digest, generation=serving.generation, key_id=visitor.key_id)
    return RedirectResponse("/approvals?notice=approved", status_code=303)


@router.post("/decline", dependencies=[Depends(needs(Permission.PROMOTE))])
def decline(console: ConsoleOf, visitor: SignedIn, adapter_digest: Digest, reason: WrittenReason) -> Response:
    """End an adapter's wait without a promotion."""
    operations.decline(console.services, visitor, adapter_digest, reason)
    log.info("adapter declined", adapter=adapter_digest, key_id=visitor.key_id)
    return RedirectResponse("/approvals?notice=declined", status_code=303)


@router.get("/specialists/{name}/leaderboard", dependencies=[Depends(needs(Permission.ADAPTERS))])
def leaderboard(request: Request, console: ConsoleOf, visitor: SignedIn, name: str, metric: str = "") -> Response:
    """Adapters and prompts by their scores."""
    answer = operations.get_leaderboard(console.services, visitor, name, metric)
    board = answer.value
    metrics = sorted({metric for entry in board.entries for metric in entry.scores}) if board else []
    view = lists.rank_entries(board, name, to_title(board.metric), request.query_params) if board else None
    return console.renderer.page(
        request, "leaderboard.html", name=name, board=board, view=view, metrics=metrics, failures=answer.failures
    )


@router.post("/specialists/{name}/pin", dependencies=[Depends(needs(Permission.PROMOTE))])
def pin(
    console: ConsoleOf,
    visitor: SignedIn,
    name: str,
    entry: Annotated[str, Form(max_length=128)],
    pinned: Annotated[bool, Form()],
) -> Response:
    """Pin an entry of the leaderboard, or stop."""
    operations.pin_entry(console.services, visitor, name, entry, pinned=pinned)
    return RedirectResponse(f"/specialists/{quote(name)}/leaderboard", status_code=303)


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
def preview_text(  # noqa: PLR0917 - fields of a form
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
def save_text(  # noqa: PLR0917 - fields of a form
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


@router.get("/evaluations/compare", dependencies=[Depends(needs(Permission.EVALUATIONS))])
def compare(  # noqa: PLR0917 - parameters of a page
    request: Request,
    console: ConsoleOf,
    visitor: SignedIn,
    first: Text = "",
    second: Text = "",
    metric: Text = "",
    task: Text = "",
    language: Text = "",
    token: Text = "",
) -> Response:
    """Two models row by row, those rows that differ most first. Without two models, a form that asks for them."""
    answer, error = None, ""
    failures: tuple[ServiceFailure, ...] = ()
    if first and second:
        wanted = CompareEvaluationsRequest(
            first=_model(first), second=_model(second), metric=metric, task=task, language=language, page_token=token
        )
        try:
            comparison = operations.compare_evaluations(console.services, visitor, wanted)
            answer, failures = comparison.value, comparison.failures
        except (FailedPrecondition, InvalidArgument) as problem:
            error = problem.message
    return console.renderer.page(
        request,
        "compare.html",
        answer=answer,
        error=error,
        names=(first, second),
        chosen={"first": first, "second": second, "metric": metric, "task": task, "language": language},
        failures=failures,
    )


def _model(name: str) -> ComparedModel:
    adapter, _, model = name.partition(":")
    return ComparedModel(adapter_digest=adapter.strip(), model=model.strip())
