"""A dataset with its rows, and a document with the way to its rows."""

from dataclasses import replace
from typing import Any
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Request
from fastapi.responses import RedirectResponse, Response

from services.console import browsing, handlers
from services.console.domain import SPLITS, Permission, RowQuery
from services.console.web.access import ConsoleOf, SignedIn, needs
from services.console.web.notices import NOTICES

router = APIRouter()


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
        learners=learners.value if learners else (),
        failures=dict.fromkeys(answer.failures + (learners.failures if learners else ())),
    )
