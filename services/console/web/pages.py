"""The read-only pages: each asks the handlers and renders a template. Commands are in `actions.py`."""

from urllib.parse import quote

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse, RedirectResponse, Response

from services.console import browsing, handlers
from services.console.domain import Permission
from services.console.lists import documents, training
from services.console.lists import specialists as specialist_lists
from services.console.overview import load_overview
from services.console.web.access import ConsoleOf, SignedIn, needs
from services.console.web.board import make_board
from services.console.web.navigation import find_main_page
from services.console.web.notices import NOTICES
from tailor.errors import NotFound, Reason

router = APIRouter()


@router.get("/")
def main_page(visitor: SignedIn) -> Response:
    """Redirect visitors to the page at which their work begins."""
    return RedirectResponse(find_main_page(visitor), status_code=303)


@router.get("/flow", dependencies=[Depends(needs(Permission.FLOW))])
def flow(request: Request, console: ConsoleOf, visitor: SignedIn, specialist: str = "") -> Response:
    """The flow at work, from the rows on of one specialist."""
    view = load_overview(console.services, visitor, specialist)
    board = make_board(view, visitor)
    return console.renderer.page(request, "flow.html", board=board, names=view.names, failures=view.failures)


@router.get("/api/flow", dependencies=[Depends(needs(Permission.FLOW))])
def flow_values(console: ConsoleOf, visitor: SignedIn, specialist: str = "") -> Response:
    """The flow at work as JSON."""
    return JSONResponse(make_board(load_overview(console.services, visitor, specialist), visitor))


@router.get("/documents", dependencies=[Depends(needs(Permission.DOCUMENTS))])
def documents_page(request: Request, console: ConsoleOf, visitor: SignedIn) -> Response:
    """Documents."""
    answer = documents.list_documents(console.services, visitor, request.query_params)
    return console.renderer.page(
        request,
        "documents.html",
        view=answer.value,
        specialist=visitor.focus(answer.value.query.filters.get("specialist", "")),
        failures=answer.failures,
    )


@router.get("/documents/rejected", dependencies=[Depends(needs(Permission.DOCUMENTS))])
def rejected(request: Request, console: ConsoleOf, visitor: SignedIn) -> Response:
    """Rejected submissions with reason and hint."""
    answer = documents.list_rejections(console.services, visitor, request.query_params)
    return console.renderer.page(request, "rejected.html", view=answer.value, failures=answer.failures)


@router.get("/documents/own", dependencies=[Depends(needs(Permission.SUBMISSIONS))])
def own_document(request: Request, console: ConsoleOf, visitor: SignedIn, id: str = "") -> Response:
    """What became of a document, by its publisher's own id."""
    own_id = id.strip()
    answer = browsing.find_submissions(console.services, visitor, own_id) if own_id else None
    return console.renderer.page(
        request,
        "own_document.html",
        own_id=own_id,
        submissions=answer.value if answer else (),
        failures=answer.failures if answer else (),
    )


@router.get("/datasets", dependencies=[Depends(needs(Permission.DATASETS))])
def datasets(request: Request, console: ConsoleOf, visitor: SignedIn) -> Response:
    """Datasets, newest first."""
    answer = training.list_datasets(console.services, visitor, request.query_params)
    return console.renderer.page(request, "datasets.html", view=answer.value, failures=answer.failures)


@router.get("/adapters", dependencies=[Depends(needs(Permission.ADAPTERS))])
def adapters(request: Request, console: ConsoleOf, visitor: SignedIn) -> Response:
    """Adapters, newest first, with the gate's decisions."""
    answer = training.list_adapters(console.services, visitor, request.query_params)
    known = handlers.list_specialists(console.services, visitor)
    return console.renderer.page(
        request,
        "adapters.html",
        view=answer.value,
        generations={item.specialist.name: item.serving.decision.generation for item in known.value},
        failures=dict.fromkeys(answer.failures + known.failures),
    )


@router.get("/decisions", dependencies=[Depends(needs(Permission.AUDIT))])
def decisions(request: Request, console: ConsoleOf, visitor: SignedIn) -> Response:
    """Operators' decisions, newest first."""
    answer = training.list_decisions(console.services, visitor, request.query_params)
    return console.renderer.page(request, "decisions.html", view=answer.value, failures=answer.failures)


@router.get("/evaluations/{digest}", dependencies=[Depends(needs(Permission.EVALUATIONS))])
def evaluation(request: Request, console: ConsoleOf, visitor: SignedIn, digest: str, notice: str = "") -> Response:
    """An adapter's scores compared with base and incumbent, the gate's decision, and the report."""
    answer = handlers.get_adapter(console.services, visitor, digest)
    adapter = answer.value
    report = handlers.get_evaluation(console.services, adapter.adapter.digest if adapter else digest)
    known = handlers.list_specialists(console.services, visitor)
    specialists = [item for item in known.value if adapter and item.specialist.name == adapter.adapter.specialist]
    return console.renderer.page(
        request,
        "evaluation.html",
        digest=digest,
        entry=adapter,
        # Without the registry's answer, it is not known whether the visitor may see the report.
        report=report.value if adapter else None,
        specialist=specialists[0] if specialists else None,
        notice=NOTICES.get(notice),
        failures=dict.fromkeys(answer.failures + report.failures + known.failures),
    )


@router.get("/evaluations/{digest}/plot.png", dependencies=[Depends(needs(Permission.EVALUATIONS))])
def plot(console: ConsoleOf, visitor: SignedIn, digest: str) -> Response:
    """The report's plot."""
    adapter = handlers.get_adapter(console.services, visitor, digest).value
    report = handlers.get_evaluation(console.services, adapter.adapter.digest).value if adapter else None
    if report is None or not report.plot_png:
        raise NotFound(Reason.NO_PLOT, "This evaluation has no plot.")
    return Response(report.plot_png, media_type="image/png")


@router.get("/specialists", dependencies=[Depends(needs(Permission.SPECIALISTS))])
def specialists(request: Request, console: ConsoleOf, visitor: SignedIn, notice: str = "") -> Response:
    """Specialists and what serves them."""
    answer = specialist_lists.list_specialists(console.services, visitor, request.query_params)
    return console.renderer.page(
        request, "specialists.html", view=answer.value, notice=NOTICES.get(notice), failures=answer.failures
    )


@router.get("/ask", dependencies=[Depends(needs(Permission.ASK))])
def ask(request: Request, console: ConsoleOf, visitor: SignedIn, specialist: str = "") -> Response:
    """Ask twice at once, and compare."""
    served = handlers.list_served(console.services, visitor)
    judged = handlers.list_judged(console.services, visitor) if visitor.may(Permission.JUDGE) else None
    return console.renderer.page(
        request,
        "ask.html",
        served=served.value,
        chosen=specialist,
        judged=judged.value if judged else None,
        failures=served.failures + (judged.failures if judged else ()),
    )


@router.get("/drafts", dependencies=[Depends(needs(Permission.TRACE))])
def find_draft(request: Request, console: ConsoleOf, draft_id: str = "") -> Response:
    """Find a draft by its id."""
    if draft_id:
        return RedirectResponse(f"/drafts/{quote(draft_id.strip(), safe='')}", status_code=303)
    return console.renderer.page(request, "drafts.html")


@router.get("/drafts/{draft_id}", dependencies=[Depends(needs(Permission.TRACE))])
def draft(request: Request, console: ConsoleOf, visitor: SignedIn, draft_id: str) -> Response:
    """The origin of a draft, and its text if it is stored."""
    trace = handlers.trace_draft(console.services, visitor, draft_id)
    text = handlers.get_draft_text(console.services, visitor, trace.draft)
    run = handlers.get_run_of_draft(console.services, visitor, trace)
    failures = text.failures + run.failures
    return console.renderer.page(request, "draft.html", trace=trace, text=text.value, run=run.value, failures=failures)


@router.get("/erasures", dependencies=[Depends(needs(Permission.ERASURES))])
def erasures(request: Request, console: ConsoleOf) -> Response:
    """Erasures, and the services that have not forgotten the documents yet."""
    answer = documents.list_erasures(console.services, request.query_params)
    return console.renderer.page(request, "erasures.html", view=answer.value, failures=answer.failures)
