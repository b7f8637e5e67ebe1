"""The page of one specialist: its flow from documents to judgements, and its definition."""

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response

from services.console import commands, specialist_flow
from services.console.domain import Permission
from services.console.web.access import ConsoleOf, SignedIn, needs
from services.console.web.notices import NOTICES

router = APIRouter()


@router.get("/specialists/{name}", dependencies=[Depends(needs(Permission.SPECIALISTS))])
def specialist(request: Request, console: ConsoleOf, visitor: SignedIn, name: str, notice: str = "") -> Response:
    """One specialist: how far each step is, where it waits and why."""
    flow = specialist_flow.load_flow(console.services, visitor, name)
    origins = commands.list_origins(console.services, visitor, name)
    return console.renderer.page(
        request,
        "specialist.html",
        name=name,
        entry=flow.entry,
        steps=flow.steps,
        origins=origins.value,
        notice=NOTICES.get(notice),
        failures=(*flow.failures, *origins.failures),
    )
