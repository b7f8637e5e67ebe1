"""Pages and commands of operators: definitions, overrides, approvals and leaderboards."""

from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Depends, Form, Query, Request
from fastapi.responses import RedirectResponse, Response

from services.console import operations
from services.console.domain import MAX_COMMENT_CHARS, MAX_REASON_CHARS, Permission
from services.console.lists import training as lists
from services.console.web.access import ConsoleOf, SignedIn, needs
from services.console.web.definition_form import DefinitionForm, add_proposals, to_definition, to_form
from services.console.web.render import metric as to_title
from tailor.errors import Aborted, InvalidArgument
from tailor.logging import get_logger

log = get_logger(__name__)

router = APIRouter()

Name = Annotated[str, Form(max_length=63)]
Digest = Annotated[str, Form(max_length=64)]
WrittenReason = Annotated[str, Form(max_length=MAX_REASON_CHARS)]
Line = Annotated[str, Query(max_length=MAX_COMMENT_CHARS)]
FormOf = Annotated[DefinitionForm, Form()]


@router.get("/specialists/{name}/edit", dependencies=[Depends(needs(Permission.MANAGE_SPECIALISTS))])
def edit(  # noqa: PLR0917 - fields of a query
    request: Request, console: ConsoleOf, visitor: SignedIn, name: str, guideline: Line = "", criterion: Line = ""
) -> Response:
    """The form of a specialist's definition; a guideline and a criterion of the judge model are added to what it has."""
    current = operations.get_specialist(console.services, visitor, name).specialist
    form = add_proposals(to_form(current), guideline, criterion)
    return console.renderer.page(request, "definition.html", name=name, form=form, changes=None, error="", fields={})


@router.get("/specialists/{name}/guidelines", dependencies=[Depends(needs(Permission.MANAGE_SPECIALISTS))])
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


@router.post("/specialists/{name}/preview", dependencies=[Depends(needs(Permission.MANAGE_SPECIALISTS))])
def preview(request: Request, console: ConsoleOf, visitor: SignedIn, name: str, form: FormOf) -> Response:
    """The form with what it would change, field by field; saves nothing."""
    return _update(request, console, visitor, name, form, validate_only=True)


@router.post("/specialists/{name}/edit", dependencies=[Depends(needs(Permission.MANAGE_SPECIALISTS))])
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


@router.post("/specialists/{name}/delete", dependencies=[Depends(needs(Permission.MANAGE_SPECIALISTS))])
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
