"""A dataset with its rows, a document with the way to its rows, and syntheses with the samples that experts accept or reject."""

from dataclasses import replace
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Form, Request
from fastapi.responses import RedirectResponse, Response

from services.console import browsing, handlers
from services.console.domain import SPLITS, Permission, RowQuery
from services.console.lists import specialists
from services.console.web.access import ConsoleOf, SignedIn, needs
from services.console.web.notices import NOTICES
from tailor.list_columns import describe_rules_only
from tailor.logging import get_logger

log = get_logger(__name__)

router = APIRouter()

SAMPLE_STATES = ("pending", "accepted", "rejected", "refused")
READING = [Depends(needs(Permission.SYNTHESES))]


@router.get("/datasets/{digest}", dependencies=[Depends(needs(Permission.DATASETS))])
def dataset(
    request: Request,
    *,
    console: ConsoleOf,
    visitor: SignedIn,
    digest: str,
    split: str = "",
    task: str = "",
    document: str = "",
    text: str = "",
    token: str = "",
    notice: str = "",
) -> Response:
    """One dataset: its figures, what it leaves out, its rows by filters, and the adapters trained on it."""
    query = RowQuery(digest, split, task.strip(), document.strip(), text)
    answer = handlers.get_dataset(console.services, visitor, digest)
    dataset, adapters = answer.value or (None, ())
    base = f"/datasets/{dataset.digest if dataset else digest}"
    values: dict[str, Any] = {
        "digest": digest,
        "dataset": dataset,
        "adapters": adapters,
        "query": query,
        "splits": SPLITS,
        "notice": NOTICES.get(notice),
    }
    values |= {"token": token, "base": f"{base}?{urlencode(query.filters)}" if query.filters else base}
    if dataset is None:
        # Without the registry's answer, it is not known whether the visitor may see the rows.
        return console.renderer.page(request, "dataset.html", **values, failures=answer.failures)
    query = replace(query, digest=dataset.digest)
    described = browsing.describe_dataset(console.services, dataset.digest)
    read = browsing.read_rows(console.services, query, token)
    values |= {"description": described.value, "rows": read.value}
    failures = dict.fromkeys(answer.failures + described.failures + read.failures)
    return console.renderer.page(request, "dataset.html", **values, failures=failures)


@router.get("/rows", dependencies=[Depends(needs(Permission.DATASETS))])
def rows(
    console: ConsoleOf,
    visitor: SignedIn,
    specialist: str,
    document: str = "",
) -> Response:
    """Go to the rows of a document in the specialist's newest dataset."""
    digest = browsing.find_newest_dataset(console.services, visitor, specialist)
    filters = f"?{urlencode({'document': document})}" if document else ""
    return RedirectResponse(f"/datasets/{digest}{filters}", status_code=303)


@router.get("/documents/{document_id}", dependencies=[Depends(needs(Permission.DOCUMENTS))])
def document(
    request: Request,
    console: ConsoleOf,
    visitor: SignedIn,
    document_id: str,
) -> Response:
    """One document, and the specialists that learn from it, each with the way to its rows."""
    answer = browsing.get_document(console.services, visitor, document_id)
    learners = browsing.list_learners(console.services, visitor, answer.value) if answer.value else None
    return console.renderer.page(
        request,
        "document.html",
        document_id=document_id,
        document=answer.value,
        rules_only=describe_rules_only(answer.value) if answer.value else "",
        learners=learners.value if learners else (),
        failures=dict.fromkeys(answer.failures + (learners.failures if learners else ())),
    )


@router.get("/syntheses", dependencies=READING)
def syntheses(request: Request, console: ConsoleOf, visitor: SignedIn) -> Response:
    """Syntheses, newest first."""
    answer = specialists.list_syntheses(console.services, visitor, request.query_params)
    return console.renderer.page(request, "syntheses.html", view=answer.value, failures=answer.failures)


@router.get("/syntheses/{synthesis_id}", dependencies=READING)
def synthesis(request: Request, console: ConsoleOf, visitor: SignedIn, synthesis_id: str) -> Response:
    """One synthesis with its samples."""
    answer = browsing.get_synthesis(console.services, visitor, synthesis_id)
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
    browsing.review_sample(console.services, visitor, synthesis_id, row_id, accept=accept)
    log.info("sample reviewed", synthesis_id=synthesis_id, row_id=row_id, accepted=accept, key_id=visitor.key_id)
    return RedirectResponse(f"/syntheses/{synthesis_id}?state={state}", status_code=303)
