"""The read-only pages: each asks the handlers and renders a template. Commands are in `actions.py`."""

from collections.abc import Mapping
from urllib.parse import quote

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse, RedirectResponse, Response

from services.console import browsing, commands, handlers, specialist_flow
from services.console.domain import Page, Permission, Visitor
from services.console.lists import documents, training
from services.console.lists import specialists as specialist_lists
from services.console.overview import Overview, load_overview
from services.console.rules import count_rejected, count_submitted, count_under_way, word
from services.console.web.access import ConsoleOf, SignedIn, needs
from services.console.web.charts import BASELINE, HEIGHT, WIDTH, histogram
from services.console.web.navigation import find_main_page
from services.console.web.notices import NOTICES
from services.console.web.render import duration, number, short
from tailor.api.events.v1 import models_pb2
from tailor.api.registry.v1.registry_pb2 import CatalogueAdapter, GetSpecialistResponse
from tailor.api.training.v1 import training_pb2
from tailor.errors import NotFound, Reason
from tailor.list_columns import BASES

router = APIRouter()

# More are on a page of their own.
NEWEST_DECISIONS = 10
# A tile: its name, the value in large type, a note below it, and a state that the stylesheet colours: busy, done, idle or bad.
Stage = dict[str, str]
# How the tile of the newest adapter's evaluation looks; other states are done.
STATE_TONES = {
    "evaluating": "busy",
    "refused": "bad",
    "declined": "bad",
    "withdrawn": "bad",
    "retired": "bad",
    "overridden": "bad",
    "undecided": "waiting",
    "waiting for approval": "waiting",
}


@router.get("/")
def main_page(visitor: SignedIn) -> Response:
    """Redirect visitors to the page at which their work begins."""
    return RedirectResponse(find_main_page(visitor), status_code=303)


@router.get("/flow", dependencies=[Depends(needs(Permission.FLOW))])
def flow(request: Request, console: ConsoleOf, visitor: SignedIn, specialist: str = "") -> Response:
    """The flow at work, from the rows on of one specialist."""
    view = load_overview(console.services, visitor, specialist)
    board = _make_board(view, visitor)
    return console.renderer.page(request, "flow.html", board=board, names=view.names, failures=view.failures)


@router.get("/api/flow", dependencies=[Depends(needs(Permission.FLOW))])
def flow_values(console: ConsoleOf, visitor: SignedIn, specialist: str = "") -> Response:
    """The flow at work as JSON."""
    return JSONResponse(_make_board(load_overview(console.services, visitor, specialist), visitor))


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


@router.get("/bases", dependencies=[Depends(needs(Permission.RUNS))])
def bases(request: Request, console: ConsoleOf) -> Response:
    """The bases, and what was found of each when it was added."""
    answer = handlers.list_bases(console.services)
    return console.renderer.page(request, "bases.html", columns=BASES, bases=answer.value, failures=answer.failures)


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


def _make_board(view: Overview, visitor: Visitor) -> dict[str, object]:
    """Stages in the order of the flow, counts of rejections and findings, and which services answer, as JSON values.

    templates/flow.html shows them first, and static/console.js updates them from `/api/flow`: both read these keys. A stage whose
    service does not answer shows a dash. Visitors who may not see runs get the stages before the rows only; `specialist` is then empty, as
    it is before one exists.
    """
    flow, under_way = view.flow, count_under_way(view.flow)
    stages = [
        _make_stage("submitted", count_submitted(flow), f"{number(under_way)} in progress", busy=under_way > 0),
        _make_stage("ingested", flow.ingested, "clean text, encrypted", busy=under_way > 0),
        _make_stage("anonymised", flow.anonymized, f"{number(sum(flow.findings.values()))} values replaced"),
    ]
    if visitor.may(Permission.RUNS):
        stages += [
            _show_rows(view.datasets),
            _show_run(view.runs),
            _show_evaluation(view.adapters),
            _show_serving(view.entry),
        ]
    silent = {failure.service for failure in view.failures}
    sources = [(stage, _find_service(stage, view)) for stage in stages]
    stages = [_mark_unknown(stage, source) if source in silent else stage for stage, source in sources]
    return {
        "specialist": view.entry.specialist.name if view.entry else "",
        "stages": stages,
        "rejected_total": number(count_rejected(flow)),
        "rejected": _rank_counts(flow.rejected),
        "findings": _rank_counts(flow.findings),
        "dead_lettered": _rank_counts(flow.dead_lettered),
        "services": [{"name": name, "state": "up" if up else "down"} for name, up in view.healthy.items()],
        "failures": [vars(failure) for failure in view.failures],
    }


def _make_stage(name: str, value: object, note: str, *, busy: bool = False, state: str = "") -> Stage:
    shown = number(value) if isinstance(value, int) else str(value)
    done = "done" if value not in (0, "–") else "idle"
    return {"name": name, "value": shown, "note": note, "state": state or ("busy" if busy else done)}


def _find_service(stage: Stage, view: Overview) -> str:
    # Without the registry, it is not known whose runs are shown.
    return "training" if stage["name"] == "run" and view.entry else "registry"


def _mark_unknown(stage: Stage, service: str) -> Stage:
    return {"name": stage["name"], "value": "–", "note": f"{service} does not answer", "state": "idle"}


def _rank_counts(counts: Mapping[str, int]) -> list[dict[str, object]]:
    items = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    most = max((count for _, count in items), default=1)
    return [
        {"name": name.lower().replace("_", " "), "count": number(count), "share": round(100 * count / most)}
        for name, count in items
        if count
    ]


def _show_rows(datasets: Page[models_pb2.DatasetBuilt]) -> Stage:
    if not datasets.items:
        return _make_stage("rows", 0, "no dataset yet")
    newest = datasets.items[0]
    count = newest.train_rows + newest.held_out_rows
    return _make_stage(
        "rows", count, f"{number(newest.held_out_rows)} held out · {_format_count(len(datasets.items), 'dataset')}"
    )


def _show_run(runs: Page[training_pb2.Run]) -> Stage:
    if not runs.items:
        return _make_stage("run", "–", "none yet")
    running = (run for run in runs.items if run.state == training_pb2.RUN_STATE_RUNNING)
    newest = next(running, runs.items[0])
    state, progress = word(newest, "state"), newest.progress
    if state == "running" and newest.HasField("progress"):
        percent = f"{100 * progress.step / progress.total_steps:.0f} %" if progress.total_steps else progress.phase
        left = f"loss {progress.loss:.3f} · {duration(progress.remaining_seconds)} left"
        return _make_stage("run", percent, left if progress.step else progress.phase, busy=True)
    has_losses = newest.HasField("progress") and newest.first_loss
    note = f"loss {newest.first_loss:.2f} → {progress.loss:.2f}" if has_losses else newest.reason
    tones = {"failed": "bad", "succeeded": "done", "cancelled": "idle", "awaiting approval": "waiting"}
    colour = tones.get(state, "busy")
    return _make_stage("run", state, note or _format_count(len(runs.items), "run"), state=colour)


def _show_evaluation(adapters: Page[CatalogueAdapter]) -> Stage:
    policies = [item for item in adapters.items if item.adapter.kind == models_pb2.ADAPTER_KIND_POLICY]
    if not policies:
        return _make_stage("evaluation", "–", "no adapter yet")
    newest = policies[0]
    measured = newest.HasField("evaluation")
    note = f"{number(newest.evaluation.rows)} held-out rows" if measured else "evaluation in progress"
    word_of_state = word(newest, "state")
    return _make_stage("evaluation", word_of_state, note, state=STATE_TONES.get(word_of_state, "done"))


def _show_serving(entry: GetSpecialistResponse | None) -> Stage:
    decision = entry.serving.decision if entry else models_pb2.SpecialistServing()
    if not decision.generation or decision.ended:
        return _make_stage("serving", "–", "nothing serves")
    served = short(decision.adapter_digest) if decision.adapter_digest else "the base"
    return _make_stage("serving", served, f"generation {decision.generation}")


def _format_count(count: int, noun: str) -> str:
    return f"{number(count)} {noun}{'' if count == 1 else 's'}"
