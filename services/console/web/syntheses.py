"""Syntheses, and their samples, which experts accept or reject."""

from typing import Annotated

from fastapi import APIRouter, Depends, Form, Request
from fastapi.responses import RedirectResponse, Response

from services.console import syntheses as handlers
from services.console.domain import Permission
from services.console.lists import specialists
from services.console.web.access import ConsoleOf, SignedIn, needs
from tailor.logging import get_logger

log = get_logger(__name__)

router = APIRouter()

SAMPLE_STATES = ("pending", "accepted", "rejected", "refused")
READING = [Depends(needs(Permission.SYNTHESES))]


@router.get("/syntheses", dependencies=READING)
def syntheses(request: Request, console: ConsoleOf, visitor: SignedIn) -> Response:
    """Syntheses, newest first."""
    answer = specialists.list_syntheses(console.services, visitor, request.query_params)
    return console.renderer.page(request, "syntheses.html", view=answer.value, failures=answer.failures)


@router.get("/syntheses/{synthesis_id}", dependencies=READING)
def synthesis(request: Request, console: ConsoleOf, visitor: SignedIn, synthesis_id: str) -> Response:
    """One synthesis with its samples."""
    answer = handlers.get_synthesis(console.services, visitor, synthesis_id)
    samples = specialists.list_samples(console.services, synthesis_id, request.query_params) if answer.value else None
    return console.renderer.page(
        request,
        "synthesis.html",
        synthesis=answer.value,
        view=samples.value if samples else None,
        synthesis_id=synthesis_id,
        failures=answer.failures + (samples.failures if samples else ()),
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
