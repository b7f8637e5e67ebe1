"""`tailor verify`: whether what is stored is still what was stored."""

import typer

from tailor.api.registry.v1 import objects_pb2
from tailor.cli.session import CommandSession
from tailor.cli.tables import emit_list
from tailor.columns import columns

# One object may be a base's file of many gigabytes.
PAGE_SECONDS = 3600.0


DAMAGED = columns(objects_pb2.DamagedObject, "object=uri, documents=document_ids")


def verify(session: CommandSession) -> None:
    """Read every stored object outside quarantine, and name those that are damaged. The exit status is 1 if one is.

    Restore what is damaged from a backup. Without one, publish another version of a document whose text is damaged (builds leave it out
    until then), use `tailor build SPECIALIST --again` for a file of a dataset, train an adapter again, or add a base again.
    """
    total = objects_pb2.VerifyObjectsResponse()
    while True:
        request = objects_pb2.VerifyObjectsRequest(page_token=total.next_page_token)
        page = session.connections.objects.VerifyObjects(request, timeout=PAGE_SECONDS)
        for name in ("objects", "bytes", "unnamed"):
            setattr(total, name, getattr(total, name) + getattr(page, name))
        total.damaged.extend(page.damaged)
        total.next_page_token = page.next_page_token
        if not page.next_page_token:
            break
        session.output.note(f"{total.objects:,} objects read, {len(total.damaged)} damaged")

    text = f"{total.objects:,} objects of {total.bytes / 1e6:,.0f} MB read, {len(total.damaged)} damaged."
    if total.unnamed:
        text += f" {total.unnamed:,} of them are not named by a digest: they can be read, and nothing more is known."
    empty = "Nothing is damaged."
    emit_list(session, total.damaged, DAMAGED, document=total, empty=empty, remarks=[text])
    if total.damaged:
        raise typer.Exit(1)
