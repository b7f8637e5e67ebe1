"""The experts' desk: one pair of drafts after another, judged with the keyboard."""

import math
import secrets
import time
from dataclasses import replace
from typing import Annotated, Literal
from urllib.parse import quote

from fastapi import APIRouter, Depends, Form, Request
from fastapi.responses import JSONResponse, RedirectResponse, Response
from pydantic import BaseModel, Field

from services.console import handlers
from services.console import judging as desk
from services.console.domain import MAX_COMMENT_CHARS, MAX_EDIT_CHARS, Judgement, Page, Permission, Visitor
from services.console.web.access import Console, ConsoleOf, SignedIn, needs
from tailor.errors import InvalidArgument, NotFound, Reason, ResourceExhausted
from tailor.logging import get_logger

log = get_logger(__name__)

router = APIRouter()

# Each holds a thread of the console until it is written.
MAX_SECOND_DRAFTS = 4
JUDGING = [Depends(needs(Permission.JUDGE))]
# The marks of the better draft, in the order in which keys give them.
MARKS = (("accuracy", "Factually correct"), ("style", "In house style"), ("usefulness", "Useful as is"))

Name = Annotated[str, Form(max_length=63)]
DraftId = Annotated[str, Form(max_length=64)]
Mark = Annotated[int, Form(ge=0, le=5)]


class IncompleteDraft(BaseModel):
    """A draft whose prompt needs a second answer."""

    draft_id: str = Field(max_length=64)


class EditedPair(BaseModel):
    """A pair of which the expert edited the better draft."""

    specialist: str = Field(max_length=63)
    first: str = Field(max_length=64)
    second: str = Field(max_length=64)
    decision: Literal["first", "second"]
    text: str = Field(max_length=MAX_EDIT_CHARS)
    attempt: str = Field(max_length=32)
    accuracy: int = Field(0, ge=0, le=5)
    style: int = Field(0, ge=0, le=5)
    usefulness: int = Field(0, ge=0, le=5)
    comment: str = Field("", max_length=MAX_COMMENT_CHARS)
    shown: float = Field(0.0, ge=0)

    def to_judgement(self) -> Judgement:
        """The ranking of the two drafts. Raises InvalidArgument."""
        ranking = (self.second, self.first) if self.decision == "second" else (self.first, self.second)
        judgement = Judgement(ranking, self.accuracy, self.style, self.usefulness, self.comment.strip())
        return replace(judgement, seconds=seconds_since(self.shown))


@router.get("/judge", dependencies=JUDGING)
def show_next(request: Request, console: ConsoleOf, visitor: SignedIn, specialist: str = "") -> Response:
    """The visitor's next pair of a specialist."""
    names, chosen, failures = _choose_specialist(console, visitor, specialist)
    opened = desk.open_desk(console.services, visitor, chosen) if chosen and visitor.key_id else None
    return console.renderer.page(
        request,
        "judge.html",
        names=names,
        specialist=chosen,
        queue=opened.queue if opened else None,
        comparison=opened.comparison if opened else None,
        marks=MARKS,
        max_edit=MAX_EDIT_CHARS,
        attempt=secrets.token_hex(8),
        shown=f"{time.time():.1f}",
        failures=dict.fromkeys(failures + (opened.failures if opened else ())),
    )


def _choose_specialist(
    console: Console, visitor: Visitor, specialist: str
) -> tuple[list[str], str, tuple[handlers.ServiceFailure, ...]]:
    """The visitor's specialists that store their drafts' texts, the chosen one or else the first, and failures."""
    known = handlers.list_learning(console.services, visitor)
    names = sorted(known.value or ())
    if specialist and known.value is not None and specialist not in names:
        raise NotFound(
            Reason.UNKNOWN_SPECIALIST, "This specialist does not exist, or does not store its drafts' texts."
        )
    return names, specialist or (names[0] if names else ""), known.failures


@router.get("/judge/own", dependencies=JUDGING)
def show_own(
    request: Request, console: ConsoleOf, visitor: SignedIn, specialist: str = "", token: str = ""
) -> Response:
    """The visitor's judgements of a specialist."""
    names, chosen, failures = _choose_specialist(console, visitor, specialist)
    answer = desk.list_own(console.services, visitor, chosen, token) if chosen and visitor.key_id else None
    return console.renderer.page(
        request,
        "own_judgements.html",
        names=names,
        specialist=chosen,
        answer=answer.value if answer else None,
        page=Page(tuple(answer.value.judgements), answer.value.next_page_token) if answer else Page(),
        token=token,
        failures=dict.fromkeys(failures + (answer.failures if answer else ())),
    )


@router.post("/judge/undo", dependencies=JUDGING)
def undo(
    console: ConsoleOf, visitor: SignedIn, specialist: Name, decision: Annotated[str, Form(max_length=32)]
) -> Response:
    """Take back the visitor's last decision, and show its pair again."""
    desk.undo(console.services, visitor, specialist, decision)
    log.info("decision taken back", specialist=specialist, key_id=visitor.key_id)
    return _show_desk(specialist)


@router.post("/judge", dependencies=JUDGING)
def judge(  # noqa: PLR0917 - fields of a form
    console: ConsoleOf,
    visitor: SignedIn,
    specialist: Name,
    first: DraftId,
    second: DraftId,
    attempt: Annotated[str, Form(max_length=32)],
    action: Annotated[Literal["record", "skip"], Form()],
    decision: Annotated[Literal["", "first", "second", "tie", "both_bad"], Form()] = "",
    accuracy: Mark = 0,
    style: Mark = 0,
    usefulness: Mark = 0,
    comment: Annotated[str, Form(max_length=MAX_COMMENT_CHARS)] = "",
    shown: Annotated[float, Form(ge=0)] = 0.0,
) -> Response:
    """Record a decision, or skip the pair, and show the next one."""
    if action == "skip":
        desk.skip_pair(console.services, visitor, specialist, first)
        log.info("pair skipped", specialist=specialist, key_id=visitor.key_id)
        return _show_desk(specialist)
    if not decision:
        field = {"decision": "must be one draft, equally good, or both bad"}
        raise InvalidArgument(Reason.INVALID_JUDGEMENT, "Choose which draft is better.", field_violations=field)
    visitor.require_specialist(specialist)
    ranking = (second, first) if decision == "second" else (first, second)
    if decision in ("tie", "both_bad"):
        judgement = Judgement(ranking, comment=comment.strip(), outcome=decision)
    else:
        judgement = Judgement(ranking, accuracy, style, usefulness, comment.strip())
    judgement = replace(judgement, seconds=seconds_since(shown))
    recorded = handlers.record_judgement(console.services, visitor, judgement, attempt)
    log.info("judged", judgement_id=recorded.judgement_id, key_id=visitor.key_id)
    return _show_desk(specialist)


@router.post("/api/judge/edit", dependencies=JUDGING)
def record_edit(console: ConsoleOf, visitor: SignedIn, body: EditedPair) -> Response:
    """Record an edited draft, and that it is better than both drafts of the pair."""
    recorded = desk.record_edit(
        console.services, visitor, body.specialist, body.to_judgement(), text=body.text, attempt=body.attempt
    )
    log.info("draft edited", judgement_id=recorded.judgement_id, key_id=visitor.key_id)
    return JSONResponse({"judgement_id": recorded.judgement_id})


@router.post("/api/judge/regenerate", dependencies=JUDGING)
def regenerate(console: ConsoleOf, visitor: SignedIn, body: IncompleteDraft) -> Response:
    """Have a second draft written. Raises ResourceExhausted while others are being written."""
    if not console.second_drafts.acquire(blocking=False):
        message = "Other second drafts are being written. Reload the page in a moment."
        raise ResourceExhausted(Reason.TOO_MANY_CALLS, message)
    try:
        draft_id = desk.regenerate(console.services, visitor, body.draft_id)
    finally:
        console.second_drafts.release()
    log.info("second draft written", draft_id=draft_id, key_id=visitor.key_id)
    return JSONResponse({"draft_id": draft_id})


def seconds_since(shown: float) -> float:
    """Seconds since a page was shown, by the console's clock; 0 if that is unknown or in the future. The registry caps them."""
    seconds = time.time() - shown if shown and math.isfinite(shown) else 0.0
    return max(seconds, 0.0)


def _show_desk(specialist: str) -> Response:
    return RedirectResponse(f"/judge?specialist={quote(specialist, safe='')}", status_code=303)
