"""Commands of engineers: build a dataset, plan, start, approve and cancel runs, evaluate an adapter."""

from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Depends, Form, Query, Request
from fastapi.responses import RedirectResponse, Response
from pydantic import BaseModel, Field

from services.console import commands
from services.console.domain import MAX_RECIPE_CHARS, Permission, RunTerms
from services.console.web.access import ConsoleOf, SignedIn, needs
from tailor.errors import FailedPrecondition, InvalidArgument
from tailor.logging import get_logger

log = get_logger(__name__)

router = APIRouter()

STARTING = [Depends(needs(Permission.MANAGE_RUNS))]
# Names a press of a button: the same one has its effect once.
Attempt = Annotated[str, Form(min_length=8, max_length=64)]


class RunForm(BaseModel):
    """A run as the form sends it."""

    specialist: str = Field(max_length=63)
    dataset: str = Field(max_length=64)
    base: str = Field(max_length=MAX_RECIPE_CHARS)
    recipe: str = Field(max_length=MAX_RECIPE_CHARS)
    preferences: str = Field("", max_length=64)
    parent: str = Field("", max_length=64)
    priority: int = 0
    attempt: str = Field(min_length=8, max_length=64)

    def to_terms(self) -> RunTerms:
        """Raises InvalidArgument with a violation per invalid field."""
        return RunTerms(
            specialist=self.specialist.strip(),
            dataset=self.dataset.strip(),
            base=self.base.strip(),
            recipe=self.recipe.strip(),
            preferences=self.preferences.strip(),
            parent=self.parent.strip(),
            priority=self.priority,
        )


FormOf = Annotated[RunForm, Form()]


@router.post("/specialists/{name}/build", dependencies=[Depends(needs(Permission.BUILD))])
def build(
    console: ConsoleOf, visitor: SignedIn, name: str, attempt: Attempt, kind: Annotated[str, Form(max_length=16)]
) -> Response:
    """Build a dataset now."""
    built = commands.build_dataset(console.services, visitor, name, kind, attempt)
    log.info("dataset build requested", specialist=name, kind=kind, key_id=visitor.key_id)
    if built is None:
        return RedirectResponse(f"/specialists/{quote(name)}?notice=building", status_code=303)
    notice = "built" if built.created else "unchanged"
    return RedirectResponse(f"/datasets/{quote(built.dataset.digest)}?notice={notice}", status_code=303)


@router.post("/specialists/{name}/admit", dependencies=[Depends(needs(Permission.BUILD))])
def admit(
    console: ConsoleOf,
    visitor: SignedIn,
    name: str,
    kind: Annotated[str, Form(max_length=16)],
    origin: Annotated[str, Form(max_length=64)] = "",
) -> Response:
    """Let a specialist learn from a source or a publisher that is new to it."""
    commands.admit_origin(console.services, visitor, name, kind, origin)
    log.info("origin admitted", specialist=name, kind=kind, origin=origin, key_id=visitor.key_id)
    return RedirectResponse(f"/specialists/{quote(name)}?notice=admitted#origins", status_code=303)


@router.get("/runs/new", dependencies=STARTING)
def show_form(
    request: Request, console: ConsoleOf, visitor: SignedIn, dataset: Annotated[str, Query(max_length=64)]
) -> Response:
    """The form of a run on a dataset, filled in as the specialist's pipeline would run on it."""
    answer = commands.suggest_run(console.services, visitor, dataset)
    return console.renderer.page(
        request, "new_run.html", terms=answer.value, plan=None, error="", fields={}, failures=answer.failures
    )


@router.post("/runs/plan", dependencies=STARTING)
def plan(request: Request, console: ConsoleOf, visitor: SignedIn, form: FormOf) -> Response:
    """The form with a forecast; starts nothing."""
    forecast, error, fields, status = None, "", {}, 200
    try:
        forecast = commands.plan_run(console.services, visitor, form.to_terms())
    except (FailedPrecondition, InvalidArgument) as problem:
        error, fields, status = problem.message, problem.field_violations, problem.code.http_status
    return console.renderer.page(request, "new_run.html", status, terms=form, plan=forecast, error=error, fields=fields)


@router.post("/runs", dependencies=STARTING)
def start(request: Request, console: ConsoleOf, visitor: SignedIn, form: FormOf) -> Response:
    """Queue a run. An invalid form is shown again with what is wrong."""
    try:
        run = commands.start_run(console.services, visitor, form.to_terms(), form.attempt)
    except (FailedPrecondition, InvalidArgument) as problem:
        status, error, fields = problem.code.http_status, problem.message, problem.field_violations
        return console.renderer.page(request, "new_run.html", status, terms=form, plan=None, error=error, fields=fields)
    log.info("run started", run_id=run.run_id, specialist=run.specialist, key_id=visitor.key_id)
    return RedirectResponse(f"/runs/{quote(run.run_id)}?notice=started", status_code=303)


@router.post("/runs/{run_id}/cancel", dependencies=STARTING)
def cancel(console: ConsoleOf, visitor: SignedIn, run_id: str) -> Response:
    """End a run."""
    commands.cancel_run(console.services, visitor, run_id)
    log.info("run cancelled", run_id=run_id, key_id=visitor.key_id)
    return RedirectResponse(f"/runs/{quote(run_id)}?notice=cancelled", status_code=303)


@router.post("/runs/{run_id}/approve", dependencies=STARTING)
def approve(console: ConsoleOf, visitor: SignedIn, run_id: str) -> Response:
    """Start a run that waits for approval."""
    commands.approve_run(console.services, visitor, run_id)
    log.info("run approved", run_id=run_id, key_id=visitor.key_id)
    return RedirectResponse(f"/runs/{quote(run_id)}?notice=run-approved", status_code=303)


@router.post("/runs/{run_id}/resume", dependencies=STARTING)
def resume(console: ConsoleOf, visitor: SignedIn, run_id: str, attempt: Attempt) -> Response:
    """Start a cancelled or failed run where it stopped."""
    run = commands.resume_run(console.services, visitor, run_id, attempt)
    log.info("run resumed", run_id=run.run_id, key_id=visitor.key_id)
    return RedirectResponse(f"/runs/{quote(run.run_id)}?notice=started", status_code=303)


@router.post("/evaluations/{digest}/evaluate", dependencies=[Depends(needs(Permission.EVALUATE))])
def evaluate(console: ConsoleOf, visitor: SignedIn, digest: str, attempt: Attempt) -> Response:
    """Queue another evaluation of an adapter."""
    adapter = commands.evaluate(console.services, visitor, digest, attempt)
    log.info("evaluation queued", adapter=adapter, key_id=visitor.key_id)
    return RedirectResponse(f"/evaluations/{quote(adapter)}?notice=evaluating", status_code=303)
