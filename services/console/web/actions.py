"""What visitors do: ask, judge, promote, roll back, start and stop canaries."""

from typing import Annotated

from fastapi import APIRouter, Depends, Form
from fastapi.responses import JSONResponse, RedirectResponse, Response
from pydantic import BaseModel, Field

from services.console import handlers
from services.console.domain import MAX_COMMENT_CHARS, MAX_PROMPT_CHARS, Action, Judgement, Question, Visitor
from services.console.views import Piece, Serving
from services.console.web.access import ConsoleOf, needs
from services.console.web.streams import Event
from tailor.logging import get_logger

log = get_logger(__name__)

router = APIRouter()

# What a decision on the page says: for whom, of which adapter, and what its operator saw.
Operator = Annotated[Visitor, Depends(needs(Action.PROMOTE))]
Name = Annotated[str, Form(max_length=63)]
Digest = Annotated[str, Form(max_length=64)]
Generation = Annotated[int, Form(ge=0)]


class Asked(BaseModel):
    """A question as the page sends it."""

    model: str = Field(max_length=63)
    prompt: str = Field(max_length=MAX_PROMPT_CHARS)
    max_tokens: int = 256
    temperature: float = 0.0


class Judged(BaseModel):
    """A judgement as the page sends it; marks from 1 to 5, 0 is not given."""

    ranking: list[str] = Field(min_length=1, max_length=8)
    accuracy: int = 0
    style: int = 0
    usefulness: int = 0
    comment: str = Field("", max_length=MAX_COMMENT_CHARS)


@router.post("/api/ask")
def ask(console: ConsoleOf, visitor: Annotated[Visitor, Depends(needs(Action.ASK))], asked: Asked) -> Response:
    """One answer as it comes."""
    question = Question(asked.model, asked.prompt, asked.max_tokens, asked.temperature)
    return console.streams.respond(handlers.question(console.services, visitor, question), piece_event)


@router.post("/api/judgements")
def judge(console: ConsoleOf, visitor: Annotated[Visitor, Depends(needs(Action.JUDGE))], judged: Judged) -> Response:
    """Record which draft is better."""
    judgement = Judgement(
        tuple(judged.ranking), judged.accuracy, judged.style, judged.usefulness, judged.comment.strip()
    )
    judgement_id = handlers.judge(console.services, visitor, judgement)
    log.info("judged", judgement_id=judgement_id, key_id=visitor.key_id)
    return JSONResponse({"judgement_id": judgement_id})


@router.post("/promote")
def promote(
    console: ConsoleOf, visitor: Operator, specialist: Name, adapter_digest: Digest, expected_generation: Generation
) -> Response:
    """Make an adapter serve."""
    serving = handlers.promote(console.services, visitor, specialist, adapter_digest, expected_generation)
    return _decided("promoted", visitor, specialist, serving)


@router.post("/rollback")
def roll_back(console: ConsoleOf, visitor: Operator, specialist: Name, expected_generation: Generation) -> Response:
    """Make the previous adapter serve again."""
    serving = handlers.roll_back(console.services, visitor, specialist, expected_generation)
    return _decided("rolled-back", visitor, specialist, serving)


@router.post("/canary/start")
def start_canary(
    console: ConsoleOf, visitor: Operator, specialist: Name, adapter_digest: Digest, expected_generation: Generation
) -> Response:
    """Let a share of the callers get an adapter."""
    serving = handlers.start_canary(console.services, visitor, specialist, adapter_digest, expected_generation)
    return _decided("canary-started", visitor, specialist, serving)


@router.post("/canary/stop")
def stop_canary(console: ConsoleOf, visitor: Operator, specialist: Name, expected_generation: Generation) -> Response:
    """Take a canary back."""
    serving = handlers.stop_canary(console.services, visitor, specialist, expected_generation)
    return _decided("canary-stopped", visitor, specialist, serving)


def _decided(said: str, visitor: Visitor, specialist: str, serving: Serving) -> Response:
    log.info(said.replace("-", " "), specialist=specialist, generation=serving.generation, key_id=visitor.key_id)
    return RedirectResponse(f"/specialists?said={said}", status_code=303)


def piece_event(piece: Piece) -> Event:
    """The next words, or the last of them."""
    return ("piece", vars(piece))
