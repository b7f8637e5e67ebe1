"""The audit page: the state of the documents before any training, with histograms."""

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response

from services.console import handlers
from services.console.domain import Permission
from services.console.lists import training
from services.console.web.access import ConsoleOf, SignedIn, needs
from services.console.web.charts import BASELINE, HEIGHT, WIDTH, histogram

router = APIRouter()

# More are on a page of their own.
NEWEST_DECISIONS = 10


@router.get("/audit", dependencies=[Depends(needs(Permission.AUDIT))])
def audit(request: Request, console: ConsoleOf, visitor: SignedIn, specialist: str = "") -> Response:
    """The state of the documents before any training."""
    specialist = visitor.focus(specialist)
    counts, near = handlers.audit_documents(console.services, visitor, specialist)
    known = handlers.list_specialists(console.services, visitor) if visitor.may(Permission.SPECIALISTS) else None
    decided = training.list_decisions(console.services, visitor, {"specialist": specialist})
    failures = counts.failures + near.failures + decided.failures + (known.failures if known else ())
    return console.renderer.page(
        request,
        "audit.html",
        audit=counts.value,
        near=near.value,
        decisions=decided.value.items[:NEWEST_DECISIONS],
        specialist=specialist,
        specialists=[item.specialist.name for item in known.value] if known else [],
        bars=histogram(counts.value.lengths.histogram if counts.value else ()),
        plot={"width": WIDTH, "height": HEIGHT, "baseline": BASELINE},
        failures=dict.fromkeys(failures),
    )
