"""The commands behind buttons: ask, judge, promote, roll back, canaries, build, plan, start and cancel runs, evaluate."""

from typing import Annotated, Literal
from urllib.parse import quote

from fastapi import APIRouter, Depends, Form, Query, Request
from fastapi.responses import JSONResponse, RedirectResponse, Response
from pydantic import BaseModel, Field

from services.console import commands, handlers
from services.console.domain import (
    MAX_COMMENT_CHARS,
    MAX_DRAFT_MARKS,
    MAX_PROMPT_CHARS,
    MAX_RECIPE_CHARS,
    Judgement,
    Permission,
    Question,
    RunTerms,
    Visitor,
)
from services.console.web.access import ConsoleOf, SignedIn, StillSignedIn, needs
from services.console.web.judging import MarkBody
from services.console.web.streams import Event
from tailor.api.events.v1.models_pb2 import SpecialistServing
from tailor.api.inference.v1.inference_pb2 import StreamGenerateResponse
from tailor.errors import FailedPrecondition, InvalidArgument
from tailor.logging import get_logger

log = get_logger(__name__)

router = APIRouter()

Name = Annotated[str, Form(max_length=63)]
Digest = Annotated[str, Form(max_length=64)]
Generation = Annotated[int, Form(ge=0)]
STARTING = [Depends(needs(Permission.MANAGE_RUNS))]
# Names a press of a button: the same one has its effect once.
Attempt = Annotated[str, Form(min_length=8, max_length=64)]


class QuestionBody(BaseModel):
    """A question as the page sends it."""

    model: str = Field(max_length=63)
    prompt: str = Field(max_length=MAX_PROMPT_CHARS)
    max_tokens: int | None = None
    temperature: float | None = None


class JudgementBody(BaseModel):
    """A judgement as the page sends it."""

    ranking: list[str] = Field(min_length=1, max_length=8)
    marks: list[MarkBody] = Field(default_factory=list, max_length=MAX_DRAFT_MARKS)
    comment: str = Field("", max_length=MAX_COMMENT_CHARS)
    outcome: Literal["ranked", "tie", "both_bad"] = "ranked"


@router.post("/api/ask", dependencies=[Depends(needs(Permission.ASK))])
def ask(console: ConsoleOf, visitor: SignedIn, still: StillSignedIn, body: QuestionBody) -> Response:
    """Stream one answer."""
    question = Question(body.model, body.prompt, body.max_tokens, body.temperature)
    return console.streams.respond(visitor, handlers.ask(console.services, visitor, question), piece_event, still)


@router.post("/api/judgements", dependencies=[Depends(needs(Permission.JUDGE))])
def judge(console: ConsoleOf, visitor: SignedIn, body: JudgementBody) -> Response:
    """Record which draft is better."""
    marks = tuple(mark.to_mark() for mark in body.marks)
    judgement = Judgement(tuple(body.ranking), marks, body.comment.strip(), body.outcome)
    recorded = handlers.record_judgement(console.services, visitor, judgement)
    log.info("judged", judgement_id=recorded.judgement_id, key_id=visitor.key_id)
    return JSONResponse({"judgement_id": recorded.judgement_id, "round": recorded.round.sentence})


@router.post("/promote", dependencies=[Depends(needs(Permission.PROMOTE))])
def promote(
    console: ConsoleOf, visitor: SignedIn, specialist: Name, adapter_digest: Digest, expected_generation: Generation
) -> Response:
    """Make an adapter serve."""
    serving = handlers.promote(console.services, visitor, specialist, adapter_digest, expected_generation)
    return _redirect("promoted", visitor, specialist, serving)


@router.post("/rollback", dependencies=[Depends(needs(Permission.PROMOTE))])
def roll_back(console: ConsoleOf, visitor: SignedIn, specialist: Name, expected_generation: Generation) -> Response:
    """Make the previous adapter serve again."""
    serving = handlers.roll_back(console.services, visitor, specialist, expected_generation)
    return _redirect("rolled-back", visitor, specialist, serving)


@router.post("/canary/start", dependencies=[Depends(needs(Permission.PROMOTE))])
def start_canary(
    console: ConsoleOf, visitor: SignedIn, specialist: Name, adapter_digest: Digest, expected_generation: Generation
) -> Response:
    """Serve an adapter to a share of the callers."""
    serving = handlers.start_canary(console.services, visitor, specialist, adapter_digest, expected_generation)
    return _redirect("canary-started", visitor, specialist, serving)


@router.post("/canary/stop", dependencies=[Depends(needs(Permission.PROMOTE))])
def stop_canary(console: ConsoleOf, visitor: SignedIn, specialist: Name, expected_generation: Generation) -> Response:
    """End the canary."""
    serving = handlers.stop_canary(console.services, visitor, specialist, expected_generation)
    return _redirect("canary-stopped", visitor, specialist, serving)


def _redirect(outcome: str, visitor: Visitor, specialist: str, serving: SpecialistServing) -> Response:
    log.info(outcome.replace("-", " "), specialist=specialist, generation=serving.generation, key_id=visitor.key_id)
    return RedirectResponse(f"/specialists/{quote(specialist)}?notice={outcome}", status_code=303)


def piece_event(piece: StreamGenerateResponse) -> Event:
    """The next words of an answer; the last event has a finish reason."""
    values = {
        "draft_id": piece.draft_id,
        "text": piece.text,
        "thought": piece.thought,
        "finish_reason": piece.finish_reason,
        "completion_tokens": piece.usage.completion_tokens,
        "generation": piece.provenance.generation,
    }
    return ("piece", values)


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
