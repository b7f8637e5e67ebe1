"""`tailor document`: the state of published documents, and the way from one to its rows."""

from collections.abc import Iterable
from typing import Annotated

import typer
from rich.console import Console

from tailor.api.events.v1 import documents_pb2, models_pb2
from tailor.api.ingestion.v1 import ingestion_pb2
from tailor.api.registry.v1 import registry_pb2
from tailor.cli.calls import first, pages, unary
from tailor.cli.columns import ShownField, columns, emit_list, item_table, show_field
from tailor.cli.connections import Connections
from tailor.cli.ids import DOCUMENTS, complete
from tailor.cli.messages import describe_removed, to_dict
from tailor.cli.session import CommandSession
from tailor.codec import decode
from tailor.errors import NotFound, Reason
from tailor.values import Selection
from tailor.wire import to_labels

OPAQUE = "doc_"


def list_documents(
    session: CommandSession,
    specialist: Annotated[str, typer.Option(help="List only documents that this specialist learns from.")] = "",
    dataset: Annotated[str, typer.Option(help="List only documents of the dataset with these first digits.")] = "",
    limit: Annotated[int, typer.Option(min=1, help="Max documents to list.")] = 100,
) -> None:
    """Count submissions by state, and list documents and rejections."""
    registry = session.connections.registry
    flow = unary("registry", registry.GetFlow, registry_pb2.GetFlowRequest())
    request = registry_pb2.ListDocumentsRequest(
        specialist=specialist, dataset=dataset, include_rejected=not specialist and not dataset
    )
    items = first(limit, pages("registry", registry.ListDocuments, request, "documents"))
    document = {"flow": to_dict(flow), "documents": [to_dict(item) for item in items]}
    emit_list(session, items, COLUMNS, document=document, remarks=lambda console: _print_flow(console, flow))


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
        result = {"document": to_dict(item.anonymized), "specialists": learning}
        session.output.emit(result, lambda console: _print_document(console, item, learning))
    else:
        _show_submissions(session, document, specialist)


def _show_submissions(session: CommandSession, own_id: str, specialist: str) -> None:
    """Show what became of each submission under a publisher's own id. Raises NotFound (UNKNOWN_DOCUMENT)."""
    request = ingestion_pb2.GetSubmissionRequest(external_id=own_id)
    try:
        answer = unary("ingestion", session.connections.ingestion.GetSubmission, request)
    except NotFound:
        raise NotFound(
            Reason.UNKNOWN_DOCUMENT,
            "Nothing was published under this id, ingestion has not read it yet, or your key may not see it. Check the id and the topic.",
        ) from None
    accepted = next((item for item in answer.submissions if item.version), None)
    entry = _anonymized(session.connections, accepted.document_id, specialist) if accepted else None
    result = {
        "submissions": [to_dict(item) for item in answer.submissions],
        "document": to_dict(entry[0].anonymized) if entry else None,
        "specialists": entry[1] if entry else [],
    }
    session.output.emit(result, lambda console: _print_submissions(console, answer.submissions, entry))


def _find_document(
    connections: Connections, document_id: str, specialist: str
) -> tuple[registry_pb2.CatalogueDocument, list[str]]:
    """An anonymised document, and the specialists that learn from it. Raises NotFound."""
    registry = connections.registry
    request = registry_pb2.ListDocumentsRequest(specialist=specialist, document_id=document_id)
    answer = unary("registry", registry.ListDocuments, request)
    if not answer.documents:
        raise NotFound(
            Reason.UNKNOWN_DOCUMENT, "There is no anonymised document with this id, or your key may not see it."
        )
    complete(DOCUMENTS, document_id, lambda start: (item.anonymized.document_id for item in answer.documents))
    item = answer.documents[0]
    known = pages("registry", registry.ListSpecialists, registry_pb2.ListSpecialistsRequest(), "specialists")
    return item, [entry.specialist.name for entry in known if _selects(entry.specialist, item.anonymized)]


def _anonymized(
    connections: Connections, document_id: str, specialist: str
) -> tuple[registry_pb2.CatalogueDocument, list[str]] | None:
    """The same, or None while the document has not passed the barrier."""
    try:
        return _find_document(connections, document_id, specialist)
    except NotFound:
        return None


def _print_submissions(
    console: Console,
    submissions: Iterable[ingestion_pb2.Submission],
    entry: tuple[registry_pb2.CatalogueDocument, list[str]] | None,
) -> None:
    shown = columns(
        "submission=submission_id", "document=document_id", ("version", lambda item: item.version or ""), "format"
    )
    console.print(item_table("", (*shown, ShownField("state", lambda item: _outcome(item, entry))), submissions))
    if entry:
        _print_document(console, *entry)


def _outcome(item: ingestion_pb2.Submission, entry: tuple[registry_pb2.CatalogueDocument, list[str]] | None) -> str:
    if item.rejection_reason:
        return f"rejected by {item.rejection_stage}: {item.rejection_reason}. {item.hint}"
    passed = entry[0].anonymized.version.sequence if entry else 0
    if item.version < passed:
        return "replaced by a newer version"
    return "anonymised" if item.version == passed else "ingested; waits for anonymization"


def _selects(specialist: models_pb2.SpecialistChanged, document: documents_pb2.DocumentAnonymized) -> bool:
    return decode(Selection, specialist.selection).admits(to_labels(document.labels))


def _print_document(console: Console, item: registry_pb2.CatalogueDocument, learning: list[str]) -> None:
    console.print(item_table("", COLUMNS, [item]))
    if item.anonymized.removed:
        console.print(f"left out {describe_removed(item.anonymized.removed)}", highlight=False, soft_wrap=True)
    for name in learning:
        console.print(
            f"rows     tailor dataset rows {name} --document {item.anonymized.document_id}",
            highlight=False,
            soft_wrap=True,
        )
    if not learning:
        console.print("No specialist learns from it.")


def _print_flow(console: Console, flow: registry_pb2.GetFlowResponse) -> None:
    console.print(f"ingested {flow.ingested}, anonymised {flow.anonymized}, rejected {sum(flow.rejected.values())}")
    for label, counts in (("rejected", flow.rejected), ("found", flow.findings), ("dead-lettered", flow.dead_lettered)):
        if counts:
            console.print(f"{label}: " + ", ".join(f"{name} {counts[name]}" for name in sorted(counts)))


def _passed(name: str, path: str = "") -> ShownField:
    """A field of a document that passed; empty for a rejected one."""
    return ShownField(name, lambda item: "" if item.HasField("rejected") else show_field(item.anonymized, path or name))


def _either(name: str, path: str) -> ShownField:
    """A field that passed and rejected documents have."""
    return ShownField(
        name, lambda item: show_field(item.rejected if item.HasField("rejected") else item.anonymized, path)
    )


def _state(item: registry_pb2.CatalogueDocument) -> str:
    if item.HasField("rejected"):
        return f"rejected: {show_field(item.rejected, 'reason')}. {item.rejected.hint}"
    uncovered = ", ".join(item.anonymized.rules_only_languages)
    return f"anonymised; {uncovered} by rules only" if uncovered else "anonymised"


COLUMNS = (
    _either("document", "document_id"),
    _passed("version", "version.sequence"),
    _passed("kind"),
    _either("format", "format"),
    _passed("characters", "char_count"),
    _either("source", "labels.source"),
    ShownField(
        "personal values", lambda item: "" if item.HasField("rejected") else sum(item.anonymized.findings.values())
    ),
    ShownField("state", _state),
)
