"""Documents, rejected submissions, and what data protection does with them."""

from services.console.clients import Services
from services.console.domain import Permission, Visitor
from services.console.handlers import PAGE_SIZE, get_dataset
from services.console.list_views import ListFilter, ListSpec, PageColumn
from services.console.lists.common import (
    ListAnswer,
    Parameters,
    by_enum,
    by_specialist,
    read_messages,
    to_columns,
    to_plain_options,
)
from tailor.api.anonymization.v1.replaced_pb2 import ListReplacedRequest, ReplacedString
from tailor.api.anonymization.v1.review_pb2 import ListRareCombinationsRequest, RareCombination
from tailor.api.registry.v1.registry_pb2 import CatalogueDocument, Erasure, ListDocumentsRequest, ListErasuresRequest
from tailor.list_columns import COMBINATIONS, DOCUMENTS, ERASURES, REPLACED

# Per call of anonymization.
MAX_FINDINGS = 50


def list_documents(services: Services, visitor: Visitor, parameters: Parameters) -> ListAnswer[CatalogueDocument]:
    """Documents by id: all, those of a specialist, or those of a dataset. A visitor who is limited to some specialists sees the documents
    of one at a time.

    Raises NotFound for a specialist or a dataset that is not visible to the visitor.
    """
    spec = ListSpec(
        path="/documents",
        noun="documents",
        columns=to_columns(
            DOCUMENTS, "document, kind, format, version, labels, language, characters, personal values, time"
        ),
        choices=(
            *(by_specialist(services, visitor) or (ListFilter("specialist", ""),)),
            ListFilter("dataset", ""),
            by_enum(CatalogueDocument, "anonymized.kind"),
        ),
        first="first",
    )
    request = ListDocumentsRequest(
        specialist=visitor.focus(parameters.get("specialist", "").strip()),
        dataset=_find_dataset(services, visitor, parameters.get("dataset", "").strip()),
        page_size=PAGE_SIZE,
    )
    return read_messages(spec, parameters, services.registry.ListDocuments, request)


def _find_dataset(services: Services, visitor: Visitor, digest: str) -> str:
    """The digest of a dataset that the visitor may see. Raises NotFound; without the registry's answer too, because it is not known."""
    if not digest:
        return ""
    visitor.require(Permission.DATASETS)
    dataset = get_dataset(services, visitor, digest).value
    return dataset[0].digest if dataset else digest


def list_rejections(services: Services, visitor: Visitor, parameters: Parameters) -> ListAnswer[CatalogueDocument]:
    """Rejected submissions by id. Raises PermissionDenied for a visitor of some specialists."""
    visitor.require_all()
    spec = ListSpec(
        path="/documents/rejected",
        noun="rejected submissions",
        columns=to_columns(DOCUMENTS, "document, reason, What to do, rejected by, format, labels, time"),
        choices=(
            by_enum(CatalogueDocument, "rejected.reason"),
            by_enum(CatalogueDocument, "rejected.stage", title="Rejected by"),
        ),
        first="first",
    )
    request = ListDocumentsRequest(only_rejected=True, page_size=PAGE_SIZE)
    return read_messages(spec, parameters, services.registry.ListDocuments, request)


def list_erasures(services: Services, parameters: Parameters) -> ListAnswer[Erasure]:
    """Erasures, newest first."""
    spec = ListSpec(
        path="/erasures",
        noun="erasures",
        columns=to_columns(
            ERASURES,
            "erasure, documents, reason",
            PageColumn("State", "state"),
            "Waiting for, Receipt, requested",
        ),
        choices=(ListFilter("state", "State", to_plain_options(("succeeded", "waiting"))),),
    )
    return read_messages(spec, parameters, services.registry.ListErasures, ListErasuresRequest())


def list_rare_combinations(services: Services, parameters: Parameters) -> ListAnswer[RareCombination]:
    """Rare combinations of quasi-identifiers."""
    spec = ListSpec(
        path="/residual",
        noun="combinations",
        columns=to_columns(COMBINATIONS, "document, types, documents that share it, (Passage)"),
        first="first",
    )
    request = ListRareCombinationsRequest(page_size=MAX_FINDINGS)
    return read_messages(spec, parameters, services.review.ListRareCombinations, request)


def list_replaced(services: Services, parameters: Parameters) -> ListAnswer[ReplacedString]:
    """Strings that are replaced in many documents, by their surrogates."""
    spec = ListSpec(
        path="/replaced",
        noun="strings",
        columns=to_columns(REPLACED, "type, surrogate, times, documents, departments, sources, decided"),
        first="most replaced",
    )
    request = ListReplacedRequest(page_size=MAX_FINDINGS)
    return read_messages(spec, parameters, services.replaced.ListReplaced, request)
