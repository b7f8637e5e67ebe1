"""`tailor erasure`: erase documents and people, and show the signed receipts."""

from collections.abc import Iterator, Sequence
from typing import Annotated

import typer

from tailor.api.anonymization.v1 import anonymization_pb2
from tailor.api.registry.v1 import registry_pb2
from tailor.cli import ids
from tailor.cli.options import Limit, listed
from tailor.cli.session import CommandSession
from tailor.cli.tables import emit_list, emit_pages
from tailor.errors import InvalidArgument, Reason
from tailor.events.envelope import new_id
from tailor.list_columns import ERASURES

ERASURE = "ers_"
TEXT = "txt_"
SUBJECT_REASON = "subject-request"
DOCUMENT_REASON = "document-request"
MAX_DOCUMENTS = 1000  # per erasure


def create(
    session: CommandSession,
    *,
    document: Annotated[
        list[str] | None,
        typer.Option(help="A document by its id's first digits; repeatable.", callback=ids.document_ids),
    ] = None,
    subject: Annotated[
        str,
        typer.Option(
            help="A person: the name, e-mail address or phone number as documents write it. It is sent only to anonymization."
        ),
    ] = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="With --subject: list the documents, and erase nothing.")
    ] = False,
    reason: Annotated[str, typer.Option(help="A slug for the receipt, such as `court-order`.")] = "",
) -> None:
    """Erase documents, or all documents about a person, from every service.

    Needs a key with the role data-protection. The embedded stack's first is in `.tailor/secrets/protection.key`.
    """
    if bool(document) == bool(subject):
        raise InvalidArgument(Reason.NOTHING_NAMED, "Give exactly one of --document and --subject.")
    document_ids = document or _resolve(session, subject, dry_run=dry_run)
    if dry_run:
        session.output.emit({"document_ids": document_ids}, "\n".join(document_ids) or "No document would be erased.")
        return
    reason = reason or (SUBJECT_REASON if subject else DOCUMENT_REASON)
    batches = [document_ids[start : start + MAX_DOCUMENTS] for start in range(0, len(document_ids), MAX_DOCUMENTS)]
    _emit_erasures(session, [_erase(session, batch, reason) for batch in batches])


def lift(
    session: CommandSession,
    erased: Annotated[
        str, typer.Argument(metavar="[ID]", help="An erasure, or one document that was erased.", callback=ids.erased_id)
    ] = "",
    *,
    subject: Annotated[
        str,
        typer.Option(
            help="A name, e-mail address or phone number whose suppression ends. Erased documents stay erased."
        ),
    ] = "",
) -> None:
    """Lift an erasure, so that its documents may be published again, or the suppression of a person."""
    if bool(erased) == bool(subject):
        raise InvalidArgument(Reason.NOTHING_NAMED, "Give either an erasure's or a document's id, or --subject.")
    if erased:
        _emit_erasures(session, _lift(session, erased))
        return
    session.connections.anonymization.LiftSubject(anonymization_pb2.LiftSubjectRequest(subject=subject))
    session.output.emit({"lifted": True}, "Lifted. Documents published from now on contain surrogates for it again.")


def show(
    session: CommandSession,
    erasure: Annotated[str, typer.Argument(help="The erasure's id, or its first digits.", callback=ids.erasure_id)],
) -> None:
    """Show an erasure: its receipt, or what it still waits for."""
    item = session.connections.registry.GetErasure(registry_pb2.GetErasureRequest(erasure_id=erasure)).erasure
    session.output.emit(item, _describe(item))


@listed
def list_erasures(session: CommandSession, request: registry_pb2.ListErasuresRequest, limit: Limit = 50) -> None:
    """List erasures, newest first, with the services that have not confirmed yet."""
    emit_pages(
        session,
        session.connections.registry.ListErasures,
        request,
        ERASURES,
        limit,
    )


def _emit_erasures(session: CommandSession, erasures: list[registry_pb2.Erasure]) -> None:
    emit_list(session, erasures, ERASURES, document={"erasures": erasures})


def _resolve(session: CommandSession, subject: str, *, dry_run: bool) -> list[str]:
    request = anonymization_pb2.ResolveSubjectRequest(subject=subject, dry_run=dry_run)
    answer = session.connections.anonymization.ResolveSubject(request)
    verb = "would be" if dry_run else "are"
    session.output.note(f"{_count(answer.document_ids)}; {answer.vault_entries} vault entries {verb} destroyed.")
    return list(answer.document_ids)


def _count(ids: Sequence[str]) -> str:
    """Documents, and texts that come from none."""
    texts = sum(key.startswith(TEXT) for key in ids)
    documents = f"{len(ids) - texts} documents"
    return f"{documents}, {texts} imported rows and examples of syntheses" if texts else documents


def _erase(session: CommandSession, document_ids: list[str], reason: str) -> registry_pb2.Erasure:
    request = registry_pb2.EraseRequest(document_ids=document_ids, request_id=new_id("req"), reason=reason)
    return session.connections.registry.Erase(request).erasure


def _lift(session: CommandSession, name: str) -> list[registry_pb2.Erasure]:
    registry = session.connections.registry
    documents = [name]
    if name.startswith(ERASURE):
        erasure = registry.GetErasure(registry_pb2.GetErasureRequest(erasure_id=name)).erasure
        documents = sorted(set(erasure.document_ids) - set(erasure.lifted_document_ids))
    lifted = {}
    for document_id in documents:
        erasure = registry.LiftErasure(registry_pb2.LiftErasureRequest(document_id=document_id)).erasure
        lifted[erasure.erasure_id] = erasure
    return list(lifted.values())


def _describe(item: registry_pb2.Erasure) -> Iterator[str]:
    (state,) = ERASURES.pick("state")
    yield f"{item.erasure_id}: {state.cell(item)}"
    if not item.HasField("receipt"):
        yield from item.document_ids
        return
    yield item.receipt.body
    yield f"signature {item.receipt.signature.hex()}"
    yield f"public key of the registry {item.receipt.public_key.hex()}"
