"""From datasets to rows, from rows to documents, and back."""

from dataclasses import dataclass

from services.console.domain import Page, Permission, Role, RowQuery, Visitor
from services.console.handlers import ServiceAnswer, call, list_specialists, scan
from services.console.ports import Services
from tailor.api.events.v1.documents_pb2 import DocumentAnonymized
from tailor.api.ingestion.v1.ingestion_pb2 import Submission
from tailor.api.registry.v1.registry_pb2 import GetDatasetResponse
from tailor.api.synthetic.v1.synthetic_pb2 import Row
from tailor.errors import NotFound, Reason
from tailor.wire import to_labels, to_selection

# Synthetic reads a limited number of rows per call, so a rare row may need several.
MAX_CALLS = 4


@dataclass(frozen=True)
class RowsRead:
    """A page of rows, and how many were read for it."""

    page: Page[Row]
    scanned: int = 0


def read_rows(services: Services, query: RowQuery, token: str) -> ServiceAnswer[RowsRead]:
    """The next rows of a dataset that the visitor may see. The page may be empty although more follow."""

    def read() -> RowsRead:
        next_token, scanned = token, 0
        for _ in range(MAX_CALLS):
            answer = services.rows.list_rows(query, next_token)
            next_token, scanned = answer.next_page_token, scanned + answer.scanned_rows
            if answer.rows or not next_token:
                break
        return RowsRead(Page(tuple(answer.rows), next_token), scanned)

    return call("synthetic", read, RowsRead(Page()))


def describe_dataset(services: Services, digest: str) -> ServiceAnswer[GetDatasetResponse | None]:
    """The tokens of a dataset that the visitor may see, and what it leaves out."""
    return call("registry", lambda: services.catalogue.describe_dataset(digest), None)


def find_newest_dataset(services: Services, visitor: Visitor, specialist: str) -> str:
    """The digest of the specialist's newest dataset of documents. Raises NotFound."""
    visitor.require_specialist(specialist)
    return services.rows.find_newest(specialist)


def get_document(services: Services, visitor: Visitor, document_id: str) -> ServiceAnswer[DocumentAnonymized | None]:
    """An anonymised document. Raises NotFound for one that is unknown, or that none of the visitor's specialists selects."""

    def find() -> DocumentAnonymized:
        document = services.catalogue.get_document(document_id).anonymized
        if visitor.specialists:
            labels = to_labels(document.labels)
            known = (item.specialist for item in scan(services.catalogue.list_specialists))
            usable = (item for item in known if visitor.may_use(item.name))
            if not any(to_selection(item.selection).admits(labels) for item in usable):
                raise NotFound(Reason.UNKNOWN_DOCUMENT, "There is no anonymised document with this id.")
        return document

    return call("registry", find, None)


def find_submissions(services: Services, visitor: Visitor, own_id: str) -> ServiceAnswer[tuple[Submission, ...]]:
    """What became of the document that its publisher calls `own_id`; empty if ingestion knows none. An engineer sees no other key's."""
    key_id = "" if visitor.role is Role.OPERATOR else visitor.key_id

    def find() -> tuple[Submission, ...]:
        return tuple(services.get_submission(own_id, key_id).submissions)

    try:
        return call("ingestion", find, ())
    except NotFound:
        return ServiceAnswer(())


def list_learners(services: Services, visitor: Visitor, document: DocumentAnonymized) -> ServiceAnswer[tuple[str, ...]]:
    """The visitor's specialists that select the document, by name; none if the visitor may not see datasets."""
    if not visitor.may(Permission.DATASETS):
        return ServiceAnswer(())
    answer = list_specialists(services, visitor)
    labels = to_labels(document.labels)
    known = (item.specialist for item in answer.value)
    return ServiceAnswer(
        tuple(item.name for item in known if to_selection(item.selection).admits(labels)), answer.failure
    )
