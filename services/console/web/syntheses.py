"""Syntheses, and their samples, which experts accept or reject."""

from typing import Annotated

from fastapi import APIRouter, Depends, Form, Query, Request
from fastapi.responses import RedirectResponse, Response

from services.console import syntheses as handlers
from services.console.domain import Permission
from services.console.web.access import ConsoleOf, SignedIn, needs
from tailor.logging import get_logger

log = get_logger(__name__)

router = APIRouter()

SAMPLE_STATES = ("pending", "accepted", "rejected", "refused")
READING = [Depends(needs(Permission.SYNTHESES))]
State = Annotated[str, Query(pattern=f"^({'|'.join(SAMPLE_STATES)})?$")]


@router.get("/syntheses", dependencies=READING)
def syntheses(request: Request, console: ConsoleOf, visitor: SignedIn, token: str = "") -> Response:
    """Syntheses, newest first."""
    answer = handlers.list_syntheses(console.services, visitor, token)
    return console.renderer.page(request, "syntheses.html", page=answer.value, token=token, failures=answer.failures)


@router.get("/syntheses/{synthesis_id}", dependencies=READING)
def synthesis(  # noqa: PLR0917 - fields of a query
    request: Request, console: ConsoleOf, visitor: SignedIn, synthesis_id: str, state: State = "", token: str = ""
) -> Response:
    """One synthesis with its samples."""
    answer = handlers.get_samples(console.services, visitor, synthesis_id, state, token)
    return console.renderer.page(
        request,
        "synthesis.html",
        synthesis=answer.value and answer.value.synthesis,
        page=answer.value and answer.value.samples,
        synthesis_id=synthesis_id,
        states=SAMPLE_STATES,
        state=state,
        token=token,
        failures=answer.failures,
    )


@router.post("/syntheses/{synthesis_id}/review", dependencies=[Depends(needs(Permission.REVIEW_SAMPLES))])
def review(  # noqa: PLR0917 - fields of a form
    console: ConsoleOf,
    visitor: SignedIn,
    synthesis_id: str,
    row_id: Annotated[str, Form(max_length=64)],
    accept: Annotated[bool, Form()],
    state: Annotated[str, Form(pattern=f"^({'|'.join(SAMPLE_STATES)})?$")] = "",
) -> Response:
    """Record a decision, and show the page with the same filter."""
    handlers.review_sample(console.services, visitor, synthesis_id, row_id, accept=accept)
    log.info("sample reviewed", synthesis_id=synthesis_id, row_id=row_id, accepted=accept, key_id=visitor.key_id)
    return RedirectResponse(f"/syntheses/{synthesis_id}?state={state}", status_code=303)
