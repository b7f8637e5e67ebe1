"""`tailor dataset rows`: what a specialist learns from, row by row."""

from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from tailor.api.events.v1 import models_pb2
from tailor.api.synthetic.v1 import synthetic_pb2, synthetic_pb2_grpc
from tailor.cli import ids
from tailor.cli.calls import dataset_digest, unary
from tailor.cli.messages import short_enum, to_dict
from tailor.cli.output import short
from tailor.cli.session import CommandSession
from tailor.values import DatasetKind

ROWS_SECONDS = 30.0
MAX_PAGE_ROWS = 100


def rows(
    session: CommandSession,
    specialist: Annotated[str, typer.Argument(help="The specialist's name.")],
    *,
    task: Annotated[str, typer.Option(help="Only rows of this task, such as `section` or `answer`.")] = "",
    document: Annotated[
        str, typer.Option(help="Only rows of the document with these first digits.", callback=ids.document_id)
    ] = "",
    grep: Annotated[str, typer.Option(help="Only rows with this text, in upper or lower case.")] = "",
    split: Annotated[str, typer.Option(help="Only rows of this side: `train` or `held_out`.")] = "",
    dataset: Annotated[str, typer.Option(help="A dataset by its first digits; by default, the newest.")] = "",
    kind: Annotated[DatasetKind, typer.Option(help="The kind of the newest dataset.")] = DatasetKind.SFT,
    preview: Annotated[
        bool,
        typer.Option(
            "--preview", help="Rows that a build would make now, drawn from all documents: look before anything trains."
        ),
    ] = False,
    new: Annotated[
        bool,
        typer.Option("--new", help="As `--preview`, of documents that arrived since the last build, admitted or not."),
    ] = False,
    limit: Annotated[int, typer.Option(min=1, help="Max rows to show.")] = 20,
) -> None:
    """Show the rows that a specialist learns from, each with its documents.

    `tailor document show ID` leads from a document to its rows.
    """
    if preview or new:
        if any((task, grep, split, dataset)):
            raise typer.BadParameter("takes only --document and --limit", param_hint="--new" if new else "--preview")
        drawn = synthetic_pb2.PreviewRowsRequest(
            specialist=specialist, document_id=document, page_size=min(limit, MAX_PAGE_ROWS), new_only=new
        )
        rows = unary("synthetic", session.connections.synthetic.PreviewRows, drawn, ROWS_SECONDS)
        session.output.emit(to_dict(rows), lambda console: print_preview(console, rows))
        return
    if split not in ("", "train", "held_out"):
        raise typer.BadParameter("must be train or held_out", param_hint="--split")
    request = synthetic_pb2.ListRowsRequest(
        specialist=specialist,
        dataset_digest=dataset_digest(session.connections.registry, dataset) if dataset else "",
        kind=models_pb2.DatasetKind.Value(f"DATASET_KIND_{kind.name}"),
        split=synthetic_pb2.Split.Value(f"SPLIT_{(split or 'unspecified').upper()}"),
        task=task,
        document_id=document,
        text=grep,
    )
    response = find_rows(session.connections.synthetic, request, limit, session.output.notes)
    session.output.emit(to_dict(response), lambda console: print_rows(console, response))


def find_rows(
    synthetic: synthetic_pb2_grpc.SyntheticServiceStub,
    request: synthetic_pb2.ListRowsRequest,
    limit: int,
    notes: Console,
) -> synthetic_pb2.ListRowsResponse:
    """Call until `limit` rows are found or the dataset ends. The result has the token of the next page. Changes the request."""
    rows: list[synthetic_pb2.Row] = []
    scanned = 0
    while True:
        request.page_size = min(limit - len(rows), MAX_PAGE_ROWS)
        page = unary("synthetic", synthetic.ListRows, request, ROWS_SECONDS)
        rows += page.rows
        scanned += page.scanned_rows
        if not page.next_page_token or len(rows) >= limit:
            break
        request.page_token = page.next_page_token
        notes.print(f"{scanned:,} rows read, {len(rows):,} found")
    return synthetic_pb2.ListRowsResponse(
        rows=rows,
        next_page_token=page.next_page_token,
        dataset_digest=page.dataset_digest,
        specialist=page.specialist,
        scanned_rows=scanned,
    )


def print_rows(console: Console, response: synthetic_pb2.ListRowsResponse) -> None:
    """Print each row with its origin, then how much was read."""
    for row in response.rows:
        _print_row(console, row)
    more = "; more follow, see --limit" if response.next_page_token else ""
    console.print(
        f"{len(response.rows):,} rows shown, {response.scanned_rows:,} read, of dataset {short(response.dataset_digest)}{more}",
        highlight=False,
    )


def print_preview(console: Console, response: synthetic_pb2.PreviewRowsResponse) -> None:
    """Print drawn rows, which no dataset has yet."""
    for row in response.rows:
        _print_row(console, row)
    console.print(f"{len(response.rows):,} rows drawn; nothing was built", highlight=False)


def _print_row(console: Console, row: synthetic_pb2.Row) -> None:
    # A preview is on neither side.
    split = short_enum(synthetic_pb2.Split, row.split, "SPLIT_") if row.split else ""
    facts = [row.task, split, row.made_by]
    facts += [row.language, f"{row.tokens:,} tokens" if row.tokens else ""]
    facts.append(f"grounded: {row.grounding}" if row.grounding else "")
    console.print(Text.assemble((row.row_id, "bold"), "  ", ", ".join(fact for fact in facts if fact)))
    if row.document_ids:
        console.print(Text(f"documents {', '.join(row.document_ids)}", style="dim"), soft_wrap=True)
    if row.source or row.publisher:
        console.print(
            Text(f"source {row.source or '(none)'}, published by {row.publisher or '(unknown)'}", style="dim")
        )
    if row.lineage:
        lineage = ", ".join(f"{name} {row.lineage[name]}" for name in sorted(row.lineage) if row.lineage[name])
        console.print(Text(lineage, style="dim"), soft_wrap=True)
    for message in row.messages:
        _print_message(console, message.role, message.content)
    if row.rejected:
        _print_message(console, "rejected", row.rejected)
    console.print()


def _print_message(console: Console, role: str, content: str) -> None:
    console.print(Text(f"[{role}]", style="cyan"))
    console.print(Text(content), soft_wrap=True)
