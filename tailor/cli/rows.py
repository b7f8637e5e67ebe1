"""`tailor dataset rows`: what a specialist learns from, row by row."""

from collections.abc import Iterator
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from tailor.api.events.v1 import models_pb2
from tailor.api.synthetic.v1 import synthetic_pb2, synthetic_pb2_grpc
from tailor.cli import ids
from tailor.cli.calls import dataset_digest
from tailor.cli.options import SpecialistName
from tailor.cli.output import bold, short
from tailor.cli.session import CommandSession
from tailor.columns import read
from tailor.values import DatasetKind

ROWS_SECONDS = 30.0
MAX_PAGE_ROWS = 100


def rows(
    session: CommandSession,
    specialist: SpecialistName,
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
        rows = session.connections.synthetic.PreviewRows(drawn, timeout=ROWS_SECONDS)
        session.output.emit(rows, _describe_preview(rows))
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
    session.output.emit(response, _describe_rows(response))


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
        page = synthetic.ListRows(request, timeout=ROWS_SECONDS)
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


def _describe_rows(response: synthetic_pb2.ListRowsResponse) -> Iterator[Any]:
    """Each row with its origin, then how much was read."""
    yield map(_describe_row, response.rows)
    read_of = f"{response.scanned_rows:,} read, of dataset {short(response.dataset_digest)}"
    yield f"{len(response.rows):,} rows shown, {read_of}{'; more follow, see --limit' * bool(response.next_page_token)}"


def _describe_preview(response: synthetic_pb2.PreviewRowsResponse) -> Iterator[Any]:
    """Drawn rows, which no dataset has yet."""
    yield map(_describe_row, response.rows)
    yield f"{len(response.rows):,} rows drawn; nothing was built"


def _describe_row(row: synthetic_pb2.Row) -> Iterator[Any]:
    # A preview is on neither side.
    split = read(row, "split") if row.split else ""
    facts = (
        row.task,
        split,
        row.made_by,
        row.language,
        f"{row.tokens:,} tokens" if row.tokens else "",
        f"grounded: {row.grounding}" if row.grounding else "",
    )
    yield bold(row.row_id, f"  {', '.join(filter(None, facts))}")
    if row.document_ids:
        yield Text(f"documents {', '.join(row.document_ids)}", style="dim")
    if row.source or row.publisher:
        origin = f"source {row.source or '(none)'}, published by {row.publisher or '(unknown)'}"
        yield Text(origin, style="dim")
    if row.lineage:
        lineage = ", ".join(f"{name} {row.lineage[name]}" for name in sorted(row.lineage) if row.lineage[name])
        yield Text(lineage, style="dim")
    texts = [(message.role, message.content) for message in row.messages]
    for role, content in (*texts, *([("rejected", row.rejected)] if row.rejected else ())):
        yield Text(f"[{role}]", style="cyan"), content
    yield ""
