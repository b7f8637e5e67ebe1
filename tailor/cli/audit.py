"""`tailor audit`: the state of the documents before any training."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from tailor.api.anonymization.v1 import replaced_pb2
from tailor.api.registry.v1 import audit_pb2, registry_pb2
from tailor.api.synthetic.v1 import synthetic_pb2, synthetic_pb2_grpc
from tailor.cli.adapters import DECISIONS
from tailor.cli.audit_report import write_report
from tailor.cli.audit_tables import facts, sections
from tailor.cli.calls import unary
from tailor.cli.columns import item_table
from tailor.cli.messages import to_dict
from tailor.cli.output import table
from tailor.cli.session import CommandSession
from tailor.errors import Unavailable

AUDIT_SECONDS = 60.0
# Operators' decisions that the audit shows.
MAX_DECISIONS = 20
# Strings that it shows.
REPLACED = 20


def audit(
    session: CommandSession,
    specialist: Annotated[str, typer.Option(help="Count only documents that this specialist selects.")] = "",
    markdown: Annotated[
        Path | None,
        typer.Option(dir_okay=False, help="Also write a Markdown report to this file, with PNG plots next to it."),
    ] = None,
) -> None:
    """Show the state of the documents before any training.

    Counts by source, department, format and language; duplicates and near-duplicates; lengths; personal data by type and density;
    rejections by reason; estimated tokens and training time; the datasets behind serving adapters and the newest ones, what they
    leave out, and what an evaluation found to be learned; what is replaced in many documents, and so is hardly personal; operators'
    newest decisions, such as overrides of the gate.
    """
    request = audit_pb2.GetAuditRequest(specialist=specialist)
    response = unary("registry", session.connections.registry.GetAudit, request, AUDIT_SECONDS)
    try:
        near = count_near_duplicates(session.connections.synthetic, specialist, session.output.notes)
    except Unavailable as error:
        session.output.notes.print(f"near-duplicates are unknown: {error.message}")
        near = None
    replaced = _list_replaced(session)
    if markdown is not None:
        for path in write_report(markdown, specialist, response, near, replaced):
            session.output.notes.print(f"wrote {path}")
    request_decisions = registry_pb2.ListDecisionsRequest(specialist=specialist, page_size=MAX_DECISIONS)
    decided = unary("registry", session.connections.registry.ListDecisions, request_decisions)
    document = {
        "audit": to_dict(response),
        "near_duplicates": None if near is None else to_dict(near),
        "replaced": None if replaced is None else to_dict(replaced),
        "decisions": [to_dict(item) for item in decided.decisions],
    }

    def render(console: Console) -> None:
        _print(console, response, near, replaced)
        console.print()
        console.print(item_table("operators' decisions", DECISIONS, decided.decisions))
        if decided.next_page_token:
            console.print("There are older ones: `tailor adapter decisions --limit N` lists them.")

    session.output.emit(document, render)


def count_near_duplicates(
    synthetic: synthetic_pb2_grpc.SyntheticServiceStub, specialist: str, notes: Console
) -> synthetic_pb2.CountNearDuplicatesResponse:
    """Call until every document is compared, or a call compares no more of them. Blocks."""
    request = synthetic_pb2.CountNearDuplicatesRequest(specialist=specialist)
    before = -1
    while True:
        response = unary("synthetic", synthetic.CountNearDuplicates, request, AUDIT_SECONDS)
        if response.compared in (response.documents, before):
            return response
        notes.print(f"comparing documents: {response.compared:,} of {response.documents:,}")
        before = response.compared


def _list_replaced(session: CommandSession) -> replaced_pb2.ListReplacedResponse | None:
    """The strings that are replaced most, in all documents; None if anonymization does not answer."""
    request = replaced_pb2.ListReplacedRequest(page_size=REPLACED)
    try:
        return unary("anonymization", session.connections.replaced.ListReplaced, request, AUDIT_SECONDS)
    except Unavailable as error:
        session.output.notes.print(f"what is replaced most is unknown: {error.message}")
        return None


def _print(
    console: Console,
    response: audit_pb2.GetAuditResponse,
    near: synthetic_pb2.CountNearDuplicatesResponse | None,
    replaced: replaced_pb2.ListReplacedResponse | None,
) -> None:
    for name, value in facts(response, near):
        console.print(f"[bold]{name}[/] {value}", highlight=False)
    for section in sections(response, replaced):
        console.print()
        console.print(table(section.title, section.columns, section.rows))
