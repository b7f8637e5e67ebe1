"""`tailor audit`: the state of the documents before any training."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from tailor.api.registry.v1 import audit_pb2
from tailor.api.synthetic.v1 import synthetic_pb2, synthetic_pb2_grpc
from tailor.cli.audit_report import write_report
from tailor.cli.audit_tables import facts, sections
from tailor.cli.calls import unary
from tailor.cli.messages import to_dict
from tailor.cli.output import table
from tailor.cli.session import session_of
from tailor.errors import Unavailable

AUDIT_SECONDS = 60.0


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("audit")(audit)


def audit(
    context: typer.Context,
    specialist: Annotated[str, typer.Option(help="Only documents that this specialist selects.")] = "",
    markdown: Annotated[
        Path | None,
        typer.Option(dir_okay=False, help="Also write a report to this file, its plots as PNG beside it."),
    ] = None,
) -> None:
    """Show the state of the documents before any training.

    Counts by source, department, format and language; duplicates and near-duplicates; lengths; personal data by type and density; what was
    rejected and why; estimated tokens and training time.
    """
    session = session_of(context)
    request = audit_pb2.GetAuditRequest(specialist=specialist)
    found = unary("registry", session.connections.registry.GetAudit, request, AUDIT_SECONDS)
    try:
        near = compare(session.connections.synthetic, specialist, session.output.notes)
    except Unavailable as error:
        session.output.notes.print(f"near-duplicates are not known: {error.message}")
        near = None
    if markdown is not None:
        for path in write_report(markdown, specialist, found, near):
            session.output.notes.print(f"wrote {path}")
    document = {"audit": to_dict(found), "near_duplicates": None if near is None else to_dict(near)}
    session.output.emit(document, lambda console: _print(console, found, near))


def compare(
    synthetic: synthetic_pb2_grpc.SyntheticServiceStub, specialist: str, notes: Console
) -> synthetic_pb2.CountNearDuplicatesResponse:
    """Ask until every document is compared, or no more of them can be."""
    request = synthetic_pb2.CountNearDuplicatesRequest(specialist=specialist)
    before = -1
    while True:
        counted = unary("synthetic", synthetic.CountNearDuplicates, request, AUDIT_SECONDS)
        if counted.compared in (counted.documents, before):
            return counted
        notes.print(f"comparing documents: {counted.compared:,} of {counted.documents:,}")
        before = counted.compared


def _print(
    console: Console, found: audit_pb2.GetAuditResponse, near: synthetic_pb2.CountNearDuplicatesResponse | None
) -> None:
    for name, value in facts(found, near):
        console.print(f"[bold]{name}[/] {value}", highlight=False)
    for section in sections(found):
        console.print()
        console.print(table(section.title, section.columns, section.rows))
