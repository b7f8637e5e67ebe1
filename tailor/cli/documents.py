"""`tailor document`: the state of published documents, and the way from one to its rows."""

from collections.abc import Iterator
from typing import Annotated, Any

import typer

from tailor.api.events.v1 import documents_pb2, models_pb2
from tailor.api.ingestion.v1 import ingestion_pb2
from tailor.api.registry.v1 import registry_pb2
from tailor.cli.calls import first, pages
from tailor.cli.connections import Connections
from tailor.cli.ids import DOCUMENTS, complete
from tailor.cli.messages import describe_removed
from tailor.cli.options import Limit, listed
from tailor.cli.session import CommandSession
from tailor.cli.tables import emit_list, item_table
from tailor.codec import decode
from tailor.columns import columns
from tailor.errors import NotFound, Reason
from tailor.list_columns import DOCUMENTS as COLUMNS
from tailor.values import Selection
from tailor.wire import to_labels

OPAQUE = "doc_"


@listed
def list_documents(
    session: CommandSession,
    request: registry_pb2.ListDocumentsRequest,
    specialist: Annotated[str, typer.Option(help="List only documents that this specialist learns from.")] = "",
    dataset: Annotated[str, typer.Option(help="List only documents of the dataset with these first digits.")] = "",
    limit: Limit = 100,
) -> None:
    """Count submissions by state, and list documents and rejections."""
    registry = session.connections.registry
    flow = registry.GetFlow(registry_pb2.GetFlowRequest())
    request.specialist, request.dataset = specialist, dataset
    request.include_rejected = not specialist and not dataset
    items = first(limit, pages(registry.ListDocuments, request))
    emit_list(session, items, SHOWN, document={"flow": flow, "documents": items}, remarks=_describe_flow(flow))


def show(
    session: CommandSession,
    document: Annotated[
        str, typer.Argument(help="The document's id: Tailor's own (`doc_...`) or its first digits, or yours.")
    ],
    specialist: Annotated[str, typer.Option(help="A specialist that learns from it, if your key is limited.")] = "",
) -> None:
    """Show a document, what became of each submission under your own id, and how to see its rows.

    `tailor dataset rows NAME --document ID` leads back. Only ingestion knows your own id, and it must be given exactly.
    """
    if document.startswith(OPAQUE):
        try:
            item, learning = _find_document(session.connections, document, specialist)
        except NotFound:
            # A publisher's own id may begin so too.
            _show_submissions(session, document, specialist)
            return
        result = {"document": item.anonymized, "specialists": learning}
        session.output.emit(result, _describe_document(item, learning))
    else:
        _show_submissions(session, document, specialist)


def _show_submissions(session: CommandSession, own_id: str, specialist: str) -> None:
    """Show what became of each submission under a publisher's own id. Raises NotFound (UNKNOWN_DOCUMENT)."""
    request = ingestion_pb2.GetSubmissionRequest(external_id=own_id)
    try:
        answer = session.connections.ingestion.GetSubmission(request)
    except NotFound:
        raise NotFound(
            Reason.UNKNOWN_DOCUMENT,
            "Nothing was published under this id, ingestion has not read it yet, or your key may not see it. Check the id and the topic.",
        ) from None
    accepted = next((item for item in answer.submissions if item.version), None)
    entry = _anonymized(session.connections, accepted.document_id, specialist) if accepted else None
    result = {
        "submissions": answer.submissions,
        "document": entry[0].anonymized if entry else None,
        "specialists": entry[1] if entry else [],
    }
    shown = columns(
        ingestion_pb2.Submission,
        "submission=submission_id, document=document_id, version=version or '', format",
        ("state", lambda item: _outcome(item, entry)),
    )
    session.output.emit(
        result, item_table("", shown, answer.submissions), _describe_document(*entry) if entry else None
    )


def _find_document(
    connections: Connections, document_id: str, specialist: str
) -> tuple[registry_pb2.CatalogueDocument, list[str]]:
    """An anonymised document, and the specialists that learn from it. Raises NotFound."""
    registry = connections.registry
    answer = registry.ListDocuments(registry_pb2.ListDocumentsRequest(specialist=specialist, document_id=document_id))
    if not answer.documents:
        raise NotFound(
            Reason.UNKNOWN_DOCUMENT, "There is no anonymised document with this id, or your key may not see it."
        )
    complete(DOCUMENTS, document_id, lambda start: (item.anonymized.document_id for item in answer.documents))
    item = answer.documents[0]
    known = pages(registry.ListSpecialists, registry_pb2.ListSpecialistsRequest())
    return item, [entry.specialist.name for entry in known if _selects(entry.specialist, item.anonymized)]


def _anonymized(
    connections: Connections, document_id: str, specialist: str
) -> tuple[registry_pb2.CatalogueDocument, list[str]] | None:
    """The same, or None while the document has not passed the barrier."""
    try:
        return _find_document(connections, document_id, specialist)
    except NotFound:
        return None


def _outcome(item: ingestion_pb2.Submission, entry: tuple[registry_pb2.CatalogueDocument, list[str]] | None) -> str:
    if item.rejection_reason:
        return f"rejected by {item.rejection_stage}: {item.rejection_reason}. {item.hint}"
    passed = entry[0].anonymized.version.sequence if entry else 0
    if item.version < passed:
        return "replaced by a newer version"
    return "anonymised" if item.version == passed else "ingested; waits for anonymization"


def _selects(specialist: models_pb2.SpecialistChanged, document: documents_pb2.DocumentAnonymized) -> bool:
    return decode(Selection, specialist.selection).admits(to_labels(document.labels))


def _describe_document(item: registry_pb2.CatalogueDocument, learning: list[str]) -> Iterator[Any]:
    yield item_table("", SHOWN, [item])
    if item.anonymized.removed:
        yield f"left out {describe_removed(item.anonymized.removed)}"
    for name in learning:
        yield f"rows     tailor dataset rows {name} --document {item.anonymized.document_id}"
    if not learning:
        yield "No specialist learns from it."


def _describe_flow(flow: registry_pb2.GetFlowResponse) -> Iterator[str]:
    yield f"ingested {flow.ingested}, anonymised {flow.anonymized}, rejected {sum(flow.rejected.values())}"
    for label, counts in (("rejected", flow.rejected), ("found", flow.findings), ("dead-lettered", flow.dead_lettered)):
        if counts:
            yield f"{label}: " + ", ".join(f"{name} {counts[name]}" for name in sorted(counts))


SHOWN = COLUMNS.pick("document, version, kind, format, characters, source, personal values, state")
