"""The page that compares two evaluated models."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response

from services.console import operations
from services.console.domain import Permission
from services.console.handlers import ServiceFailure
from services.console.web.access import ConsoleOf, SignedIn, needs
from tailor.api.evaluation.v1.evaluation_pb2 import ComparedModel, CompareEvaluationsRequest
from tailor.errors import FailedPrecondition, InvalidArgument

router = APIRouter()

Text = Annotated[str, Query(max_length=200)]


@router.get("/evaluations/compare", dependencies=[Depends(needs(Permission.EVALUATIONS))])
def compare(  # noqa: PLR0917 - parameters of a page
    request: Request,
    console: ConsoleOf,
    visitor: SignedIn,
    first: Text = "",
    second: Text = "",
    metric: Text = "",
    task: Text = "",
    language: Text = "",
    token: Text = "",
) -> Response:
    """Two models row by row, those rows that differ most first. Without two models, a form that asks for them."""
    answer, error = None, ""
    failures: tuple[ServiceFailure, ...] = ()
    if first and second:
        wanted = CompareEvaluationsRequest(
            first=_model(first), second=_model(second), metric=metric, task=task, language=language, page_token=token
        )
        try:
            comparison = operations.compare_evaluations(console.services, visitor, wanted)
            answer, failures = comparison.value, comparison.failures
        except (FailedPrecondition, InvalidArgument) as problem:
            error = problem.message
    return console.renderer.page(
        request,
        "compare.html",
        answer=answer,
        error=error,
        names=(first, second),
        chosen={"first": first, "second": second, "metric": metric, "task": task, "language": language},
        failures=failures,
    )


def _model(name: str) -> ComparedModel:
    adapter, _, model = name.partition(":")
    return ComparedModel(adapter_digest=adapter.strip(), model=model.strip())
