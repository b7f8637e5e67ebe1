"""The judging page: the drafts of one prompt after another, judged with the keyboard."""

import math
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Annotated, Literal
from urllib.parse import quote

from fastapi import APIRouter, Depends, Form, Request
from fastapi.responses import JSONResponse, RedirectResponse, Response
from pydantic import BaseModel, Field

from services.console import handlers
from services.console import judging as desk
from services.console.domain import (
    MAX_COMMENT_CHARS,
    MAX_DRAFT_MARKS,
    MAX_EDIT_CHARS,
    GivenMark,
    Judgement,
    Page,
    Permission,
    Visitor,
)
from services.console.web.access import Console, ConsoleOf, SignedIn, needs
from tailor.errors import InvalidArgument, NotFound, Reason, ResourceExhausted
from tailor.logging import get_logger

log = get_logger(__name__)

router = APIRouter()

# Each holds a thread of the console until it is written.
MAX_SECOND_DRAFTS = 4
JUDGING = [Depends(needs(Permission.JUDGE))]
# Experts rank at most this many drafts of a prompt.
MAX_RANKED = 4
MARK_FIELD = "mark-"
MARK_VALUES = ("1", "2", "3", "4", "5")

Name = Annotated[str, Form(max_length=63)]
DraftId = Annotated[str, Form(max_length=64)]
Drafts = Annotated[list[DraftId], Form(min_length=2, max_length=MAX_RANKED)]


class IncompleteDraft(BaseModel):
    """A draft whose prompt needs another answer."""

    draft_id: str = Field(max_length=64)


class DrawBody(BaseModel):
    """The specialist for which a prompt is drawn."""

    specialist: str = Field(min_length=1, max_length=63)


class MarkBody(BaseModel):
    """A mark as the page sends it."""

    draft_id: str = Field(max_length=64)
    criterion: str = Field(max_length=63)
    mark: int = Field(ge=1, le=5)

    def to_mark(self) -> GivenMark:
        return GivenMark(self.draft_id, self.criterion, self.mark)


class EditBody(BaseModel):
    """Ranked drafts of which the expert edited the best one."""

    specialist: str = Field(max_length=63)
    drafts: list[str] = Field(min_length=2, max_length=MAX_RANKED)
    places: list[int] = Field(max_length=MAX_RANKED)
    text: str = Field(max_length=MAX_EDIT_CHARS)
    attempt: str = Field(max_length=32)
    marks: list[MarkBody] = Field(default_factory=list, max_length=MAX_DRAFT_MARKS)
    comment: str = Field("", max_length=MAX_COMMENT_CHARS)
    shown: float = Field(0.0, ge=0)

    def to_judgement(self) -> Judgement:
        """The ranking of the drafts. Raises InvalidArgument, also if none is better."""
        marks = tuple(mark.to_mark() for mark in self.marks)
        judgement = Judgement.from_places(self.drafts, self.places, marks, self.comment.strip())
        if judgement.outcome != "ranked":
            field = {"places": "must not all be the same"}
            raise InvalidArgument(
                Reason.INVALID_JUDGEMENT, "Choose which draft is better, then edit it.", field_violations=field
            )
        return replace(judgement, seconds=seconds_since(self.shown))


@dataclass(frozen=True)
class FormMark:
    """A mark for the draft at an index."""

    index: int
    criterion: str
    mark: int


async def read_marks(request: Request) -> list[FormMark]:
    """The marks of a form, whose fields are named by the draft's index and the criterion: `mark-0-style`. Raises InvalidArgument."""
    marks = []
    for name, value in (await request.form()).multi_items():
        if not name.startswith(MARK_FIELD):
            continue
        index, _, criterion = name.removeprefix(MARK_FIELD).partition("-")
        if not (index in map(str, range(MAX_RANKED)) and isinstance(value, str) and value in MARK_VALUES):
            field = {"marks": "must be 1 to 5, for one of the drafts"}
            raise InvalidArgument(Reason.INVALID_JUDGEMENT, "The judgement is invalid.", field_violations=field)
        marks.append(FormMark(int(index), criterion, int(value)))
    return marks


@router.get("/judge", dependencies=JUDGING)
def show_next(request: Request, console: ConsoleOf, visitor: SignedIn, specialist: str = "") -> Response:
    """The visitor's next drafts of a specialist."""
    names, chosen, failures = _choose_specialist(console, visitor, specialist)
    pair = desk.open_judging(console.services, visitor, chosen) if chosen and visitor.key_id else None
    return console.renderer.page(
        request,
        "judge.html",
        names=names,
        specialist=chosen,
        queue=pair.queue if pair else None,
        comparison=pair.comparison if pair else None,
        max_edit=MAX_EDIT_CHARS,
        attempt=secrets.token_hex(8),
        shown=f"{time.time():.1f}",
        failures=dict.fromkeys(failures + (pair.failures if pair else ())),
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
    return _show_judging(specialist)


@router.post("/judge", dependencies=JUDGING)
def judge(  # noqa: PLR0917 - fields of a form
    console: ConsoleOf,
    visitor: SignedIn,
    specialist: Name,
    draft: Drafts,
    marks: Annotated[list[FormMark], Depends(read_marks)],
    attempt: Annotated[str, Form(max_length=32)],
    action: Annotated[Literal["record", "skip"], Form()],
    decision: Annotated[Literal["", "first", "second", "ranked", "tie", "both_bad"], Form()] = "",
    place: Annotated[list[Annotated[str, Form(max_length=1)]] | None, Form(max_length=MAX_RANKED)] = None,
    comment: Annotated[str, Form(max_length=MAX_COMMENT_CHARS)] = "",
    shown: Annotated[float, Form(ge=0)] = 0.0,
) -> Response:
    """Record a decision, or skip the drafts, and show the next ones."""
    if action == "skip":
        desk.skip_pair(console.services, visitor, specialist, draft[0])
        log.info("drafts skipped", specialist=specialist, key_id=visitor.key_id)
        return _show_judging(specialist)
    visitor.require_specialist(specialist)
    given = tuple(GivenMark(draft[mark.index], mark.criterion, mark.mark) for mark in marks if mark.index < len(draft))
    if decision in ("tie", "both_bad"):
        judgement = Judgement(tuple(draft), given, comment.strip(), decision)
    else:
        judgement = Judgement.from_places(draft, _read_places(decision, place or []), given, comment.strip())
    judgement = replace(judgement, seconds=seconds_since(shown))
    recorded = handlers.record_judgement(console.services, visitor, judgement, attempt)
    log.info("judged", judgement_id=recorded.judgement_id, key_id=visitor.key_id)
    return _show_judging(specialist)


def _read_places(decision: str, places: Sequence[str]) -> Sequence[int]:
    """The place of each draft: of a pair by the decision, of more drafts by their fields. Raises InvalidArgument."""
    if decision in ("first", "second"):
        return (1, 2) if decision == "first" else (2, 1)
    if not decision or not all(place.isdecimal() for place in places):
        field = {"decision": "must be one draft, a place for each, equally good, or bad"}
        raise InvalidArgument(Reason.INVALID_JUDGEMENT, "Choose which draft is better.", field_violations=field)
    return [int(place) for place in places]


@router.post("/api/judge/edit", dependencies=JUDGING)
def record_edit(console: ConsoleOf, visitor: SignedIn, body: EditBody) -> Response:
    """Record an edited draft, and that it is better than the drafts on the page."""
    recorded = desk.record_edit(
        console.services, visitor, body.specialist, body.to_judgement(), text=body.text, attempt=body.attempt
    )
    log.info("draft edited", judgement_id=recorded.judgement_id, key_id=visitor.key_id)
    return JSONResponse({"judgement_id": recorded.judgement_id})


@router.post("/api/judge/regenerate", dependencies=JUDGING)
def regenerate(console: ConsoleOf, visitor: SignedIn, body: IncompleteDraft) -> Response:
    """Have another draft written. Raises ResourceExhausted while others are being written."""
    with _hold_thread(console):
        draft_id = desk.regenerate(console.services, visitor, body.draft_id)
    log.info("second draft written", draft_id=draft_id, key_id=visitor.key_id)
    return JSONResponse({"draft_id": draft_id})


@router.post("/api/judge/draw", dependencies=JUDGING)
def draw_prompt(console: ConsoleOf, visitor: SignedIn, body: DrawBody) -> Response:
    """Have a prompt drawn and answered. Raises ResourceExhausted while other drafts are being written."""
    with _hold_thread(console):
        draft_id = desk.draw_prompt(console.services, visitor, body.specialist)
    log.info("prompt drawn", draft_id=draft_id, specialist=body.specialist, key_id=visitor.key_id)
    return JSONResponse({"draft_id": draft_id})


@contextmanager
def _hold_thread(console: Console) -> Iterator[None]:
    """Hold one of the few threads that wait for drafts. Raises ResourceExhausted if all of them do."""
    if not console.second_drafts.acquire(blocking=False):
        message = "Other drafts are being written. Reload the page in a moment."
        raise ResourceExhausted(Reason.TOO_MANY_CALLS, message)
    try:
        yield
    finally:
        console.second_drafts.release()


def seconds_since(shown: float) -> float:
    """Seconds since a page was shown, by the console's clock; 0 if that is unknown or in the future. The registry caps them."""
    seconds = time.time() - shown if shown and math.isfinite(shown) else 0.0
    return max(seconds, 0.0)


def _show_judging(specialist: str) -> Response:
    return RedirectResponse(f"/judge?specialist={quote(specialist, safe='')}", status_code=303)
