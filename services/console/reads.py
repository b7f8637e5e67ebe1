"""Pages of the services' lists, and single items. Every function may raise a TailorError."""

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from services.console.clients import Services
from services.console.domain import Page
from tailor.api.registry.v1 import registry_pb2
from tailor.api.registry.v1.registry_pb2 import CatalogueDocument
from tailor.api.training.v1.training_pb2 import GetRunRequest, Run
from tailor.errors import NotFound, Reason

T = TypeVar("T")

LIST_SIZE = 200
MAX_SCANNED_PAGES = 20


def read_page(method: Callable[[Any], Any], request: Any) -> Page[Any]:
    """The page of a list that a request asks its method for."""
    request.page_size = request.page_size or LIST_SIZE
    response = method(request)
    (items,) = (field.name for field in response.DESCRIPTOR.fields if field.is_repeated)
    return Page(tuple(getattr(response, items)), response.next_page_token)


def scan(method: Callable[[Any], Any], request: Any) -> Iterator[Any]:
    """Items of a list, up to a limited number of pages. Raises what the method raises."""
    for _ in range(MAX_SCANNED_PAGES):
        page = read_page(method, request)
        yield from page.items
        request.page_token = page.next_token
        if not page.next_token:
            return


def find_run(services: Services, run_id: str) -> Run:
    """A run. Raises NotFound."""
    return services.training.GetRun(GetRunRequest(run_id=run_id)).run


def find_document(services: Services, document_id: str) -> CatalogueDocument:
    """An anonymised document. Raises NotFound."""
    documents = services.registry.ListDocuments(registry_pb2.ListDocumentsRequest(document_id=document_id)).documents
    if not documents:
        raise NotFound(Reason.UNKNOWN_DOCUMENT, "There is no anonymised document with this id.")
    return documents[0]
