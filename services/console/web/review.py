"""The review of passages by data protection, and what it says about the corpus."""

import json
from typing import Annotated

from fastapi import APIRouter, Depends, Form, Query, Request
from fastapi.responses import RedirectResponse, Response

from services.console import review as handlers
from services.console.domain import PassageDecision, Permission
from services.console.lists import documents
from services.console.web.access import ConsoleOf, SignedIn, needs
from services.console.web.notices import NOTICES
from tailor.errors import InvalidArgument, Reason
from tailor.logging import get_logger

log = get_logger(__name__)

router = APIRouter()

KINDS = ("sample", "disagreement")
MAX_MARKS_CHARS = 10_000
DEFAULT_SIZE = 400
REVIEWING = [Depends(needs(Permission.REVIEW))]
READING = [Depends(needs(Permission.RESIDUAL))]
MAX_SURROGATE = 200
EntityType = Annotated[str, Query(max_length=40)]
Surrogate = Annotated[str, Query(max_length=MAX_SURROGATE)]
Kind = f"^({'|'.join(KINDS)})?$"


@router.get("/review", dependencies=REVIEWING)
def show_next(
    request: Request, console: ConsoleOf, visitor: SignedIn, kind: Annotated[str, Query(pattern=Kind)] = ""
) -> Response:
    """The visitor's next passage."""
    answer = handlers.next_passage(console.services, visitor, kind)
    passage = answer.value.passage if answer.value.HasField("passage") else None
    return console.renderer.page(
        request,
        "review.html",
        passage=passage,
        pieces=list(handlers.split_passage(passage)) if passage else [],
        types=handlers.type_keys(passage) if passage else [],
        waiting=answer.value.waiting,
        kinds=KINDS,
        kind=kind,
        failures=answer.failures,
    )


@router.post("/review", dependencies=REVIEWING)
def decide(  # noqa: PLR0917 - fields of a form
    console: ConsoleOf,
    visitor: SignedIn,
    passage_id: Annotated[str, Form(max_length=64)],
    decision: Annotated[str, Form(pattern="^(save|skip)$")],
    marks: Annotated[str, Form(max_length=MAX_MARKS_CHARS)] = "[]",
    kind: Annotated[str, Form(pattern=Kind)] = "",
) -> Response:
    """Record a decision, and show the next passage."""
    is_skip = decision == "skip"
    passage_decision = PassageDecision(passage_id, () if is_skip else read_marks(marks), is_skip)
    handlers.decide_passage(console.services, visitor, passage_decision)
    log.info(
        "passage reviewed",
        passage_id=passage_id,
        marks=len(passage_decision.marks),
        skip=is_skip,
        key_id=visitor.key_id,
    )
    return RedirectResponse(f"/review?kind={kind}", status_code=303)


@router.post("/review/undo", dependencies=REVIEWING)
def undo(console: ConsoleOf, visitor: SignedIn, kind: Annotated[str, Form(pattern=Kind)] = "") -> Response:
    """Take back the visitor's last decision."""
    handlers.undo_decision(console.services, visitor)
    return RedirectResponse(f"/review?kind={kind}", status_code=303)


@router.post("/review/sample", dependencies=REVIEWING)
def draw(
    console: ConsoleOf,
    visitor: SignedIn,
    size: Annotated[int, Form(ge=1, le=5_000)] = DEFAULT_SIZE,
    replace: Annotated[bool, Form()] = False,
) -> Response:
    """Draw a sample."""
    drawn = handlers.draw_sample(console.services, visitor, size, replace=replace)
    log.info("sample drawn", passages=drawn, key_id=visitor.key_id)
    return RedirectResponse("/review?kind=sample", status_code=303)


@router.get("/residual", dependencies=READING)
def residual(request: Request, console: ConsoleOf) -> Response:
    """What is known of what the barrier left."""
    report = handlers.get_report(console.services)
    rare = documents.list_rare_combinations(console.services, request.query_params)
    return console.renderer.page(
        request,
        "residual.html",
        report=report.value,
        view=rare.value,
        size=DEFAULT_SIZE,
        failures=report.failures or rare.failures,
    )


@router.post("/residual/statement", dependencies=REVIEWING)
def sign(request: Request, console: ConsoleOf, visitor: SignedIn) -> Response:
    """Sign the report, and offer it as the file that `tailor review verify` reads."""
    signed = handlers.sign_statement(console.services, visitor)
    log.info("residual statement signed", key_id=visitor.key_id)
    content = {"body": signed.body, "signature": signed.signature.hex(), "public_key": signed.public_key.hex()}
    return Response(
        json.dumps(content, indent=1, ensure_ascii=False) + "\n",
        media_type="application/json",
        headers={"content-disposition": 'attachment; filename="residual-statement.json"'},
    )


@router.get("/residual/{document_id}/{number}", dependencies=REVIEWING)
def passage(request: Request, console: ConsoleOf, visitor: SignedIn, document_id: str, number: int) -> Response:
    """The passage of a rare combination."""
    page = handlers.get_passage(console.services, visitor, document_id, number)
    pieces = list(handlers.split_passage(page))
    return console.renderer.page(request, "passage.html", passage=page, pieces=pieces)


@router.get("/replaced", dependencies=READING)
def show_replaced(request: Request, console: ConsoleOf, notice: str = "") -> Response:
    """The strings that are replaced in many documents, without their values."""
    answer = documents.list_replaced(console.services, request.query_params)
    return console.renderer.page(
        request, "replaced.html", view=answer.value, notice=NOTICES.get(notice), failures=answer.failures
    )


@router.get("/replaced/string", dependencies=REVIEWING)
def show_string(
    request: Request, console: ConsoleOf, visitor: SignedIn, entity_type: EntityType, surrogate: Surrogate
) -> Response:
    """One of them with its value, and ten places. Not cached."""
    seen = handlers.get_replaced(console.services, visitor, entity_type, surrogate)
    log.info("replaced string seen", entity_type=entity_type, key_id=visitor.key_id)
    return console.renderer.page(request, "replaced_string.html", seen=seen)


@router.post("/replaced", dependencies=REVIEWING)
def decide_string(
    console: ConsoleOf,
    visitor: SignedIn,
    entity_type: Annotated[str, Form(max_length=40)],
    surrogate: Annotated[str, Form(max_length=MAX_SURROGATE)],
    decision: Annotated[str, Form(pattern="^(allow|keep)$")],
) -> Response:
    """Allow a string and replay that, or keep it replaced."""
    outcome = handlers.decide_replaced(console.services, visitor, entity_type, surrogate, allow=decision == "allow")
    log.info("replaced string decided", entity_type=entity_type, decision=decision, key_id=visitor.key_id)
    return RedirectResponse(f"/replaced?notice={outcome}", status_code=303)


def read_marks(text: str) -> tuple[tuple[int, int, str], ...]:
    """`[[start, end, type], ...]` as JSON. Raises InvalidArgument (INVALID_MARKS) for anything else."""
    try:
        return tuple((int(start), int(end), str(kind)) for start, end, kind in json.loads(text))
    except (ValueError, TypeError, OverflowError, RecursionError):
        raise InvalidArgument(Reason.INVALID_MARKS, "Marks must be a JSON list of [start, end, type].") from None
