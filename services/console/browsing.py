"""From datasets to rows, from rows to documents, and back; syntheses and their samples."""

from dataclasses import dataclass

from services.console.clients import Services
from services.console.domain import Page, Permission, Role, RowQuery, Visitor
from services.console.handlers import ServiceAnswer, call, list_specialists
from services.console.reads import find_document, scan
from tailor.api.events.v1.documents_pb2 import DocumentAnonymized
from tailor.api.ingestion.v1.ingestion_pb2 import GetSubmissionRequest, Submission
from tailor.api.registry.v1 import registry_pb2
from tailor.api.registry.v1.registry_pb2 import (
    GetDatasetRequest,
    GetDatasetResponse,
)
from tailor.api.synthetic.v1.synthesis_pb2 import (
    GetSynthesisRequest,
    ReviewSamplesRequest,
    SampleDecision,
    Synthesis,
)
from tailor.api.synthetic.v1.synthetic_pb2 import ListRowsRequest, Row, Split
from tailor.codec import decode
from tailor.errors import NotFound, Reason
from tailor.values import Selection
from tailor.wire import to_labels

# Synthetic reads a limited number of rows per call, so a rare row may need several.
MAX_CALLS = 4
ROWS_SIZE = 20


@dataclass(frozen=True)
class RowsRead:
    """A page of rows, and how many were read for it."""

    page: Page[Row]
    scanned: int = 0


def read_rows(services: Services, query: RowQuery, token: str) -> ServiceAnswer[RowsRead]:
    """The next rows of a dataset that the visitor may see. The page may be empty although more follow."""

    def read() -> RowsRead:
        scanned = 0
        request = ListRowsRequest(
            dataset_digest=query.digest,
            split=Split.Value(f"SPLIT_{(query.split or 'unspecified').upper()}"),
            task=query.task,
            document_id=query.document,
            text=query.text,
            page_size=ROWS_SIZE,
            page_token=token,
        )
        for _ in range(MAX_CALLS):
            answer = services.synthetic.ListRows(request)
            request.page_token, scanned = answer.next_page_token, scanned + answer.scanned_rows
            if answer.rows or not answer.next_page_token:
                break
        return RowsRead(Page(tuple(answer.rows), answer.next_page_token), scanned)

    return call("synthetic", read, RowsRead(Page()))


def describe_dataset(services: Services, digest: str) -> ServiceAnswer[GetDatasetResponse | None]:
    """The tokens of a dataset that the visitor may see, and what it leaves out."""
    return call("registry", lambda: services.registry.GetDataset(GetDatasetRequest(digest=digest)), None)


def find_newest_dataset(services: Services, visitor: Visitor, specialist: str) -> str:
    """The digest of the specialist's newest dataset of documents. Raises NotFound."""
    visitor.require_specialist(specialist)
    return services.synthetic.ListRows(ListRowsRequest(specialist=specialist, page_size=1)).dataset_digest


def get_document(services: Services, visitor: Visitor, document_id: str) -> ServiceAnswer[DocumentAnonymized | None]:
    """An anonymised document. Raises NotFound for one that is unknown, or that none of the visitor's specialists selects."""

    def find() -> DocumentAnonymized:
        document = find_document(services, document_id).anonymized
        if visitor.specialists:
            labels = to_labels(document.labels)
            known = (
                item.specialist
                for item in scan(services.registry.ListSpecialists, registry_pb2.ListSpecialistsRequest())
            )
            usable = (item for item in known if visitor.may_use(item.name))
            if not any(decode(Selection, item.selection).admits(labels) for item in usable):
                raise NotFound(Reason.UNKNOWN_DOCUMENT, "There is no anonymised document with this id.")
        return document

    return call("registry", find, None)


def find_submissions(services: Services, visitor: Visitor, own_id: str) -> ServiceAnswer[tuple[Submission, ...]]:
    """What became of the document that its publisher calls `own_id`; empty if ingestion knows none. An engineer sees no other key's."""
    key_id = "" if visitor.role is Role.OPERATOR else visitor.key_id
    request = GetSubmissionRequest(external_id=own_id, key_id=key_id)
    try:
        return call("ingestion", lambda: tuple(services.ingestion.GetSubmission(request).submissions), ())
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
        tuple(item.name for item in known if decode(Selection, item.selection).admits(labels)), answer.failure
    )


def get_synthesis(services: Services, visitor: Visitor, synthesis_id: str) -> ServiceAnswer[Synthesis | None]:
    """A synthesis. Raises NotFound if it is not visible to the visitor."""
    return call("synthetic", lambda: _find_visible(services, visitor, synthesis_id), None)


def review_sample(services: Services, visitor: Visitor, synthesis_id: str, row_id: str, *, accept: bool) -> None:
    """Record the visitor's decision about a row."""
    _find_visible(services, visitor, synthesis_id)
    decision = SampleDecision(row_id=row_id, accept=accept)
    services.syntheses.ReviewSamples(ReviewSamplesRequest(synthesis_id=synthesis_id, decisions=[decision]))


def _find_visible(services: Services, visitor: Visitor, synthesis_id: str) -> Synthesis:
    synthesis = services.syntheses.GetSynthesis(GetSynthesisRequest(synthesis_id=synthesis_id)).synthesis
    if not visitor.may_use(synthesis.spec.specialist):
        raise NotFound(Reason.UNKNOWN_SYNTHESIS, "This synthesis does not exist, or you do not have access to it.")
    return synthesis
