"""The commands behind buttons: ask, judge, promote, roll back, start and stop canaries."""

from typing import Annotated, Literal
from urllib.parse import quote

from fastapi import APIRouter, Depends, Form
from fastapi.responses import JSONResponse, RedirectResponse, Response
from pydantic import BaseModel, Field

from services.console import handlers
from services.console.domain import (
    MAX_COMMENT_CHARS,
    MAX_DRAFT_MARKS,
    MAX_PROMPT_CHARS,
    Judgement,
    Permission,
    Question,
    Visitor,
)
from services.console.web.access import ConsoleOf, SignedIn, StillSignedIn, needs
from services.console.web.judging import MarkBody
from services.console.web.streams import Event
from tailor.api.events.v1.models_pb2 import SpecialistServing
from tailor.api.inference.v1.inference_pb2 import StreamGenerateResponse
from tailor.logging import get_logger

log = get_logger(__name__)

router = APIRouter()

Name = Annotated[str, Form(max_length=63)]
Digest = Annotated[str, Form(max_length=64)]
Generation = Annotated[int, Form(ge=0)]


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
        "finish_reason": piece.finish_reason,
        "completion_tokens": piece.usage.completion_tokens,
        "generation": piece.provenance.generation,
    }
    return ("piece", values)
