"""The pages. Each asks the handlers and renders; what did not answer is named at the top."""

from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse, RedirectResponse, Response

from services.console import handlers
from services.console.domain import Action, Visitor
from services.console.web.access import ConsoleOf, SignedIn, needs
from services.console.web.board import board
from tailor.errors import NotFound, Reason

router = APIRouter()

SAID = {
    "promoted": "The adapter serves from now on.",
    "rolled-back": "The previous adapter serves again.",
    "canary-started": "A share of the callers gets the adapter from now on.",
    "canary-stopped": "All callers get what serves again.",
}


@router.get("/")
def flow(request: Request, console: ConsoleOf, visitor: SignedIn) -> Response:
    """The flow at work; whoever may not see it is led to asking."""
    if not visitor.may(Action.FLOW):
        return RedirectResponse("/ask", status_code=303)
    view = handlers.overview(console.services, visitor)
    return console.renderer.page(request, "flow.html", board=board(view, visitor), failures=view.failures)


@router.get("/api/flow")
def flow_values(console: ConsoleOf, visitor: Annotated[Visitor, Depends(needs(Action.FLOW))]) -> Response:
    """The same as values."""
    return JSONResponse(board(handlers.overview(console.services, visitor), visitor))


@router.get("/documents")
def documents(
    request: Request,
    console: ConsoleOf,
    visitor: Annotated[Visitor, Depends(needs(Action.DOCUMENTS))],
    token: str = "",
    specialist: str = "",
) -> Response:
    """Documents, the rejected ones after them."""
    answer = handlers.documents(console.services, visitor, token, specialist)
    return console.renderer.page(
        request,
        "documents.html",
        page=answer.value,
        token=token,
        specialist=specialist,
        failures=answer.failures,
    )


@router.get("/documents/rejected", dependencies=[Depends(needs(Action.DOCUMENTS))])
def rejected(request: Request, console: ConsoleOf) -> Response:
    """Rejected submissions with reason and hint."""
    answer = handlers.rejections(console.services)
    return console.renderer.page(request, "rejected.html", items=answer.value, failures=answer.failures)


@router.get("/datasets")
def datasets(
    request: Request,
    console: ConsoleOf,
    visitor: Annotated[Visitor, Depends(needs(Action.DATASETS))],
    token: str = "",
) -> Response:
    """Datasets, newest first."""
    answer = handlers.datasets(console.services, visitor, token)
    return console.renderer.page(request, "datasets.html", page=answer.value, token=token, failures=answer.failures)


@router.get("/datasets/{digest}")
def dataset(
    request: Request, console: ConsoleOf, visitor: Annotated[Visitor, Depends(needs(Action.DATASETS))], digest: str
) -> Response:
    """One dataset, and what learned from it."""
    answer = handlers.dataset(console.services, visitor, digest)
    found, made = answer.value or (None, ())
    return console.renderer.page(
        request, "dataset.html", digest=digest, dataset=found, adapters=made, failures=answer.failures
    )


@router.get("/adapters")
def adapters(
    request: Request,
    console: ConsoleOf,
    visitor: Annotated[Visitor, Depends(needs(Action.ADAPTERS))],
    token: str = "",
) -> Response:
    """Adapters, newest first, with the gate's decisions."""
    answer = handlers.adapters(console.services, visitor, token)
    known = handlers.specialists(console.services, visitor)
    return console.renderer.page(
        request,
        "adapters.html",
        page=answer.value,
        token=token,
        generations={item.name: item.serving.generation for item in known.value},
        failures=dict.fromkeys(answer.failures + known.failures),
    )


@router.get("/evaluations/{digest}")
def evaluation(
    request: Request,
    console: ConsoleOf,
    visitor: Annotated[Visitor, Depends(needs(Action.EVALUATIONS))],
    digest: str,
) -> Response:
    """An adapter's scores beside base and incumbent, the gate, and the report."""
    adapter = handlers.adapter(console.services, visitor, digest)
    report = handlers.evaluation(console.services, digest)
    known = handlers.specialists(console.services, visitor)
    failures = dict.fromkeys(adapter.failures + report.failures + known.failures)
    mine = [item for item in known.value if adapter.value and item.name == adapter.value.specialist]
    return console.renderer.page(
        request,
        "evaluation.html",
        digest=digest,
        adapter=adapter.value,
        # Without the registry nobody can tell whose adapter it is.
        report=report.value if adapter.value else None,
        specialist=mine[0] if mine else None,
        failures=failures,
    )


@router.get("/evaluations/{digest}/plot.png")
def plot(console: ConsoleOf, visitor: Annotated[Visitor, Depends(needs(Action.EVALUATIONS))], digest: str) -> Response:
    """The report's plot."""
    adapter = handlers.adapter(console.services, visitor, digest)
    report = handlers.evaluation(console.services, digest).value if adapter.value else None
    if report is None or not report.plot_png:
        raise NotFound(Reason.NO_PLOT, "There is no plot.")
    return Response(report.plot_png, media_type="image/png")


@router.get("/specialists")
def specialists(
    request: Request,
    console: ConsoleOf,
    visitor: Annotated[Visitor, Depends(needs(Action.SPECIALISTS))],
    said: str = "",
) -> Response:
    """Specialists and what serves them."""
    answer = handlers.specialists(console.services, visitor)
    return console.renderer.page(
        request, "specialists.html", items=answer.value, said=SAID.get(said), failures=answer.failures
    )


@router.get("/ask")
def ask(
    request: Request,
    console: ConsoleOf,
    visitor: Annotated[Visitor, Depends(needs(Action.ASK))],
    specialist: str = "",
) -> Response:
    """Ask twice at once, and compare."""
    served = handlers.served(console.services, visitor)
    keeping = handlers.keeping(console.services, visitor) if visitor.may(Action.JUDGE) else None
    failures = (*served.failures, *(keeping.failures if keeping else ()))
    kept = keeping.value if keeping else None
    return console.renderer.page(
        request, "ask.html", served=served.value, chosen=specialist, keeping=kept, failures=failures
    )


@router.get("/drafts", dependencies=[Depends(needs(Action.TRACE))])
def find_draft(request: Request, console: ConsoleOf, draft_id: str = "") -> Response:
    """Look a draft up by its id."""
    if draft_id:
        return RedirectResponse(f"/drafts/{quote(draft_id.strip(), safe='')}", status_code=303)
    return console.renderer.page(request, "drafts.html")


@router.get("/drafts/{draft_id}")
def draft(
    request: Request, console: ConsoleOf, visitor: Annotated[Visitor, Depends(needs(Action.TRACE))], draft_id: str
) -> Response:
    """Where a draft came from, and its words where they are kept."""
    found = handlers.trace(console.services, visitor, draft_id)
    text = handlers.draft_text(console.services, visitor, found.draft)
    run = handlers.run_of(console.services, visitor, found)
    failures = text.failures + run.failures
    return console.renderer.page(request, "draft.html", trace=found, text=text.value, run=run.value, failures=failures)


@router.get("/erasures", dependencies=[Depends(needs(Action.ERASURES))])
def erasures(request: Request, console: ConsoleOf, token: str = "") -> Response:
    """What is erased, and who has not forgotten it yet."""
    answer = handlers.erasures(console.services, token)
    return console.renderer.page(request, "erasures.html", page=answer.value, token=token, failures=answer.failures)
