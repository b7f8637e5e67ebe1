"""Documents, rejected submissions, and what data protection does with them."""

from services.console import rules
from services.console.domain import DOCUMENT_ID, Page, Permission, Visitor
from services.console.handlers import PAGE_SIZE, get_dataset
from services.console.listing import ListFilter, ListQuery, ListSpec, PageColumn, parse_query
from services.console.lists.common import (
    ListAnswer,
    Parameters,
    by_enum,
    by_specialist,
    read_messages,
    read_spec,
    to_columns,
    to_plain_options,
)
from services.console.ports import Services
from services.console.reads import find_document, read_page
from tailor.api.anonymization.v1.replaced_pb2 import ListReplacedRequest, ReplacedString
from tailor.api.anonymization.v1.review_pb2 import ListRareCombinationsRequest, RareCombination
from tailor.api.registry.v1.registry_pb2 import CatalogueDocument, Erasure, ListDocumentsRequest, ListErasuresRequest
from tailor.columns import join
from tailor.errors import NotFound
from tailor.list_columns import COMBINATIONS, DOCUMENTS, ERASURES, REPLACED, join_labels

# Per call of the registry.
MAX_DOCUMENTS = 1_000
# Per call of anonymization.
MAX_FINDINGS = 50


def list_documents(services: Services, visitor: Visitor, parameters: Parameters) -> ListAnswer[CatalogueDocument]:
    """Documents by id: all, those of a specialist, or those of a dataset. A visitor who is limited to some specialists sees the documents
    of one at a time.

    Raises NotFound for a specialist or a dataset that is not visible to the visitor.
    """
    spec = ListSpec[CatalogueDocument](
        path="/documents",
        noun="documents",
        columns=to_columns(
            DOCUMENTS, "document, kind, format, version, labels, language, characters, personal values, time"
        ),
        text=join(
            "anonymized.document_id, anonymized.format, anonymized.language",
            lambda item: join_labels(item.anonymized.labels),
            lambda item: " ".join(item.anonymized.findings),
        ),
        searched="id, labels, format, language, types of what was replaced",
        choices=(
            *(by_specialist(services, visitor) or (ListFilter[CatalogueDocument]("specialist", ""),)),
            ListFilter("dataset", ""),
            by_enum(CatalogueDocument, "anonymized.kind"),
        ),
        first="first",
        further="further ones",
    )
    query = parse_query(spec, parameters)
    focus = visitor.focus(query.filters.get("specialist", ""))
    digest = _find_dataset(services, visitor, query.filters.get("dataset", ""))

    def list_page(token: str, query: ListQuery) -> Page[CatalogueDocument]:
        if DOCUMENT_ID.fullmatch(query.search) and not focus and not digest:
            return _get_document(services, query.search)
        size = PAGE_SIZE if not (query.search or query.sort) else MAX_DOCUMENTS
        request = ListDocumentsRequest(specialist=focus, dataset=digest, page_size=size, page_token=token)
        return read_page(services.registry.ListDocuments, request, "documents")

    return read_spec(spec, parameters, "registry", list_page)


def _find_dataset(services: Services, visitor: Visitor, digest: str) -> str:
    """The digest of a dataset that the visitor may see. Raises NotFound; without the registry's answer too, because it is not known."""
    if not digest:
        return ""
    visitor.require(Permission.DATASETS)
    dataset = get_dataset(services, visitor, digest).value
    return dataset[0].digest if dataset else digest


def _get_document(services: Services, document_id: str) -> Page[CatalogueDocument]:
    try:
        return Page((find_document(services, document_id),))
    except NotFound:
        return Page()


def list_rejections(services: Services, visitor: Visitor, parameters: Parameters) -> ListAnswer[CatalogueDocument]:
    """Rejected submissions by id. Raises PermissionDenied for a visitor of some specialists."""
    visitor.require_all()
    spec = ListSpec[CatalogueDocument](
        path="/documents/rejected",
        noun="rejected submissions",
        columns=to_columns(DOCUMENTS, "document, reason, What to do, rejected by, format, labels, time"),
        text=join(
            "rejected.document_id, rejected.submission_id, rejected.hint, rejected.format, rejected.duplicate_of",
            lambda item: rules.code(item.rejected, "reason"),
            lambda item: join_labels(item.rejected.labels),
        ),
        searched="ids, reason, what to do, format, labels",
        choices=(
            by_enum(CatalogueDocument, "rejected.reason"),
            by_enum(CatalogueDocument, "rejected.stage", title="Rejected by"),
        ),
        first="first",
        further="further ones",
    )
    request = ListDocumentsRequest(only_rejected=True, page_size=PAGE_SIZE)
    return read_messages(spec, parameters, services.registry.ListDocuments, request)


def list_erasures(services: Services, parameters: Parameters) -> ListAnswer[Erasure]:
    """Erasures, newest first."""

    def state(item: Erasure) -> str:
        return "succeeded" if item.receipt.body else "waiting"

    spec = ListSpec[Erasure](
        path="/erasures",
        noun="erasures",
        columns=to_columns(
            ERASURES,
            "erasure, documents, reason",
            PageColumn("State", "state", state),
            "Waiting for, Receipt, requested",
        ),
        text=join("erasure_id, reason, document_ids, waiting_for"),
        searched="ids of erasures and documents, reason, services",
        choices=(ListFilter("state", "State", to_plain_options(("succeeded", "waiting")), state),),
    )
    return read_messages(spec, parameters, services.registry.ListErasures, ListErasuresRequest())


def list_rare_combinations(services: Services, parameters: Parameters) -> ListAnswer[RareCombination]:
    """Rare combinations of quasi-identifiers."""
    spec = ListSpec[RareCombination](
        path="/residual",
        noun="combinations",
        columns=to_columns(COMBINATIONS, "document, types, documents that share it, (Passage)"),
        text=join("document_id, entity_types"),
        searched="document, types",
        first="first",
        further="further ones",
    )
    request = ListRareCombinationsRequest(page_size=MAX_FINDINGS)
    return read_messages(spec, parameters, services.review.ListRareCombinations, request)


def list_replaced(services: Services, parameters: Parameters) -> ListAnswer[ReplacedString]:
    """Strings that are replaced in many documents, by their surrogates."""
    spec = ListSpec[ReplacedString](
        path="/replaced",
        noun="strings",
        columns=to_columns(REPLACED, "type, surrogate, times, documents, departments, sources, decided"),
        text=join("entity_type, surrogate"),
        searched="type, surrogate",
        first="most replaced",
        further="further ones",
    )
    request = ListReplacedRequest(page_size=MAX_FINDINGS)
    return read_messages(spec, parameters, services.replaced.ListReplaced, request)
