"""Pages of the services' lists, and single items. Every function may raise a TailorError."""

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from services.console.domain import Page
from services.console.ports import Services
from tailor.api.events.v1.models_pb2 import DatasetBuilt
from tailor.api.registry.v1 import people_pb2, registry_pb2
from tailor.api.registry.v1.registry_pb2 import CatalogueAdapter, CatalogueDocument, GetSpecialistResponse
from tailor.api.training.v1.training_pb2 import GetRunRequest, ListRunsRequest, Run
from tailor.errors import NotFound, Reason

T = TypeVar("T")

LIST_SIZE = 200
MAX_SCANNED_PAGES = 20


def scan(list_page: Callable[[str], Page[T]]) -> Iterator[T]:
    """The items of a paged list, up to a limited number of pages. Raises what `list_page` raises."""
    token = ""
    for _ in range(MAX_SCANNED_PAGES):
        page = list_page(token)
        yield from page.items
        token = page.next_token
        if not token:
            return


def read_page(method: Callable[[Any], Any], request: Any, items: str) -> Page[Any]:
    """A page of a list; `items` is the response's field that has them."""
    response = method(request)
    return Page(tuple(getattr(response, items)), response.next_page_token)


def read_datasets(services: Services, token: str, specialist: str = "") -> Page[DatasetBuilt]:
    """A page of the datasets, newest first, of all specialists or of one."""
    request = registry_pb2.ListDatasetsRequest(specialist=specialist, page_token=token, page_size=LIST_SIZE)
    return read_page(services.registry.ListDatasets, request, "datasets")


def read_adapters(services: Services, token: str, specialist: str = "") -> Page[CatalogueAdapter]:
    """A page of the adapters, newest first, of all specialists or of one."""
    request = registry_pb2.ListAdaptersRequest(specialist=specialist, page_token=token, page_size=LIST_SIZE)
    return read_page(services.registry.ListAdapters, request, "adapters")


def read_specialists(services: Services, token: str) -> Page[GetSpecialistResponse]:
    """A page of the specialists, by name."""
    request = registry_pb2.ListSpecialistsRequest(page_token=token, page_size=LIST_SIZE)
    return read_page(services.registry.ListSpecialists, request, "specialists")


def read_keys(services: Services, token: str) -> Page[registry_pb2.Key]:
    """A page of the API keys, newest first."""
    request = registry_pb2.ListKeysRequest(page_token=token, page_size=LIST_SIZE)
    return read_page(services.registry.ListKeys, request, "keys")


def read_runs(services: Services, token: str, specialist: str = "") -> Page[Run]:
    """A page of the runs, newest first, of all specialists or of one."""
    request = ListRunsRequest(specialist=specialist, page_token=token, page_size=LIST_SIZE)
    return read_page(services.training.ListRuns, request, "runs")


def find_run(services: Services, run_id: str) -> Run:
    """A run. Raises NotFound."""
    return services.training.GetRun(GetRunRequest(run_id=run_id)).run


def read_people(services: Services, token: str) -> Page[people_pb2.Person]:
    """A page of the people, newest first."""
    request = people_pb2.ListPeopleRequest(page_token=token, page_size=LIST_SIZE)
    return read_page(services.people.ListPeople, request, "people")


def find_document(services: Services, document_id: str) -> CatalogueDocument:
    """An anonymised document. Raises NotFound."""
    documents = services.registry.ListDocuments(registry_pb2.ListDocumentsRequest(document_id=document_id)).documents
    if not documents:
        raise NotFound(Reason.UNKNOWN_DOCUMENT, "There is no anonymised document with this id.")
    return documents[0]
