"""Documents, rejected submissions, and what data protection does with them."""

from services.console import rules
from services.console.domain import DOCUMENT_ID, Page, Permission, Visitor
from services.console.handlers import PAGE_SIZE, get_dataset
from services.console.listing import Column, ListFilter, ListQuery, ListSpec, parse_query
from services.console.lists.common import (
    ListAnswer,
    Parameters,
    by_specialist,
    join_labels,
    read_spec,
    seconds,
    to_options,
    to_plain_options,
)
from services.console.ports import Services
from services.console.reads import LIST_SIZE, find_document, read_page
from tailor.api.anonymization.v1.replaced_pb2 import ListReplacedRequest, ReplacedString
from tailor.api.anonymization.v1.review_pb2 import ListRareCombinationsRequest, RareCombination
from tailor.api.common.v1 import common_pb2
from tailor.api.events.v1 import documents_pb2
from tailor.api.registry.v1 import registry_pb2
from tailor.errors import NotFound

# Per call of the registry.
MAX_DOCUMENTS = 1_000
# Per call of anonymization.
MAX_FINDINGS = 50


def list_documents(
    services: Services, visitor: Visitor, parameters: Parameters
) -> ListAnswer[registry_pb2.CatalogueDocument]:
    """Documents by id: all, those of a specialist, or those of a dataset. A visitor who is limited to some specialists sees the documents
    of one at a time.

    Raises NotFound for a specialist or a dataset that is not visible to the visitor.
    """
    choices = by_specialist(services, visitor)
    spec = ListSpec[registry_pb2.CatalogueDocument](
        path="/documents",
        noun="documents",
        columns=(
            Column("Document", "document", lambda item: item.anonymized.document_id),
            Column("Kind", "kind", lambda item: rules.word(item.anonymized, "kind")),
            Column("Format", "format", lambda item: item.anonymized.format),
            Column("Version", "version", lambda item: item.anonymized.version.sequence, numeric=True),
            Column("Labels", "labels", lambda item: join_labels(item.anonymized.labels)),
            Column("Language", "language", lambda item: item.anonymized.language),
            Column("Characters", "characters", lambda item: item.anonymized.char_count, numeric=True),
            Column("Found and replaced", "found", lambda item: sum(item.anonymized.findings.values()), numeric=True),
            Column("Time (UTC)", "time", lambda item: seconds(item.anonymized.create_time), numeric=True),
        ),
        text=lambda item: " ".join(
            (
                item.anonymized.document_id,
                item.anonymized.format,
                item.anonymized.language,
                join_labels(item.anonymized.labels),
                *item.anonymized.findings,
            )
        ),
        searched="id, labels, format, language, types of what was replaced",
        choices=(
            *(choices or (ListFilter[registry_pb2.CatalogueDocument]("specialist", ""),)),
            ListFilter("dataset", ""),
            ListFilter(
                "kind", "Kind", to_options(common_pb2.Kind, "KIND_"), lambda item: rules.code(item.anonymized, "kind")
            ),
        ),
        first="first",
        further="further ones",
    )
    query = parse_query(spec, parameters)
    focus = visitor.focus(query.filters.get("specialist", ""))
    digest = _find_dataset(services, visitor, query.filters.get("dataset", ""))

    def list_page(token: str, query: ListQuery) -> Page[registry_pb2.CatalogueDocument]:
        if DOCUMENT_ID.fullmatch(query.search) and not focus and not digest:
            return _get_document(services, query.search)
        size = PAGE_SIZE if not (query.search or query.sort) else MAX_DOCUMENTS
        request = registry_pb2.ListDocumentsRequest(specialist=focus, dataset=digest, page_size=size, page_token=token)
        return read_page(services.registry.ListDocuments, request, "documents")

    return read_spec(spec, parameters, "registry", list_page)


def _find_dataset(services: Services, visitor: Visitor, digest: str) -> str:
    """The digest of a dataset that the visitor may see. Raises NotFound; without the registry's answer too, because it is not known."""
    if not digest:
        return ""
    visitor.require(Permission.DATASETS)
    dataset = get_dataset(services, visitor, digest).value
    return dataset[0].digest if dataset else digest


def _get_document(services: Services, document_id: str) -> Page[registry_pb2.CatalogueDocument]:
    try:
        return Page((find_document(services, document_id),))
    except NotFound:
        return Page()


def list_rejections(
    services: Services, visitor: Visitor, parameters: Parameters
) -> ListAnswer[registry_pb2.CatalogueDocument]:
    """Rejected submissions by id. Raises PermissionDenied for a visitor of some specialists."""
    visitor.require_all()
    spec = ListSpec[registry_pb2.CatalogueDocument](
        path="/documents/rejected",
        noun="rejected submissions",
        columns=(
            Column("Document", "document", lambda item: item.rejected.document_id),
            Column("Reason", "reason", lambda item: rules.code(item.rejected, "reason")),
            Column("What to do"),
            Column("Rejected by", "stage", lambda item: rules.word(item.rejected, "stage")),
            Column("Format", "format", lambda item: item.rejected.format),
            Column("Labels", "labels", lambda item: join_labels(item.rejected.labels)),
            Column("Time (UTC)", "time", lambda item: seconds(item.rejected.create_time), numeric=True),
        ),
        text=lambda item: " ".join(
            (
                item.rejected.document_id,
                item.rejected.submission_id,
                rules.code(item.rejected, "reason"),
                item.rejected.hint,
                item.rejected.format,
                item.rejected.duplicate_of,
                join_labels(item.rejected.labels),
            )
        ),
        searched="ids, reason, what to do, format, labels",
        choices=(
            ListFilter(
                "reason",
                "Reason",
                to_options(documents_pb2.RejectionReason, "REJECTION_REASON_"),
                lambda item: rules.code(item.rejected, "reason"),
            ),
            ListFilter(
                "stage",
                "Rejected by",
                to_options(documents_pb2.Stage, "STAGE_"),
                lambda item: rules.code(item.rejected, "stage"),
            ),
        ),
        first="first",
        further="further ones",
    )

    def list_page(token: str, query: ListQuery) -> Page[registry_pb2.CatalogueDocument]:
        request = registry_pb2.ListDocumentsRequest(only_rejected=True, page_size=PAGE_SIZE, page_token=token)
        return read_page(services.registry.ListDocuments, request, "documents")

    return read_spec(spec, parameters, "registry", list_page)


def list_erasures(services: Services, parameters: Parameters) -> ListAnswer[registry_pb2.Erasure]:
    """Erasures, newest first."""

    def state(item: registry_pb2.Erasure) -> str:
        return "succeeded" if item.receipt.body else "waiting"

    spec = ListSpec[registry_pb2.Erasure](
        path="/erasures",
        noun="erasures",
        columns=(
            Column("Erasure", "erasure", lambda item: item.erasure_id),
            Column("Documents", "documents", lambda item: len(item.document_ids), numeric=True),
            Column("Reason", "reason", lambda item: item.reason),
            Column("State", "state", state),
            Column("Waiting for"),
            Column("Receipt"),
            Column("Requested (UTC)", "requested", lambda item: seconds(item.create_time), numeric=True),
        ),
        text=lambda item: " ".join((item.erasure_id, item.reason, *item.document_ids, *item.waiting_for)),
        searched="ids of erasures and documents, reason, services",
        choices=(ListFilter("state", "State", to_plain_options(("succeeded", "waiting")), state),),
    )

    def list_page(token: str, query: ListQuery) -> Page[registry_pb2.Erasure]:
        request = registry_pb2.ListErasuresRequest(page_token=token, page_size=LIST_SIZE)
        return read_page(services.registry.ListErasures, request, "erasures")

    return read_spec(spec, parameters, "registry", list_page)


def list_rare_combinations(services: Services, parameters: Parameters) -> ListAnswer[RareCombination]:
    """Rare combinations of quasi-identifiers."""
    spec = ListSpec[RareCombination](
        path="/residual",
        noun="combinations",
        columns=(
            Column("Document", "document", lambda item: item.document_id),
            Column("Types", "types", lambda item: " ".join(item.entity_types)),
            Column("Documents that share it", "documents", lambda item: item.documents, numeric=True),
            Column("Passage", silent=True),
        ),
        text=lambda item: " ".join((item.document_id, *item.entity_types)),
        searched="document, types",
        first="first",
        further="further ones",
    )

    def list_page(token: str, query: ListQuery) -> Page[RareCombination]:
        request = ListRareCombinationsRequest(page_size=MAX_FINDINGS, page_token=token)
        return read_page(services.review.ListRareCombinations, request, "combinations")

    return read_spec(spec, parameters, "anonymization", list_page)


def list_replaced(services: Services, parameters: Parameters) -> ListAnswer[ReplacedString]:
    """Strings that are replaced in many documents, by their surrogates."""
    spec = ListSpec[ReplacedString](
        path="/replaced",
        noun="strings",
        columns=(
            Column("Type", "type", lambda item: item.entity_type),
            Column("Surrogate", "surrogate", lambda item: item.surrogate),
            Column("Times", "times", lambda item: item.times, numeric=True),
            Column("Documents", "documents", lambda item: item.documents, numeric=True),
            Column("Departments", "departments", lambda item: item.departments, numeric=True),
            Column("Sources", "sources", lambda item: item.sources, numeric=True),
            Column("Decided", "decided", lambda item: item.decision),
        ),
        text=lambda item: f"{item.entity_type} {item.surrogate}",
        searched="type, surrogate",
        first="most replaced",
        further="further ones",
    )

    def list_page(token: str, query: ListQuery) -> Page[ReplacedString]:
        request = ListReplacedRequest(page_size=MAX_FINDINGS, page_token=token)
        return read_page(services.replaced.ListReplaced, request, "strings")

    return read_spec(spec, parameters, "anonymization", list_page)
