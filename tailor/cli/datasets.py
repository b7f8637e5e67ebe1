"""`tailor datasets` and `tailor build`."""

from typing import Annotated

import typer
from google.protobuf.message import Message

from tailor.api.events.v1 import models_pb2
from tailor.api.registry.v1 import registry_pb2
from tailor.api.synthetic.v1 import synthetic_pb2, synthetic_pb2_grpc
from tailor.cli import imports
from tailor.cli.calls import first, pages, unary
from tailor.cli.messages import short_enum, to_dict
from tailor.cli.output import short, shows, table
from tailor.cli.session import session_of
from tailor.events.envelope import new_id
from tailor.words import DatasetKind

BUILD_SECONDS = 300.0

app = typer.Typer()
# `tailor datasets`, and below it what imports.
group = typer.Typer(name="datasets")
group.command("import")(imports.import_dataset)
group.command("imports")(imports.list_imports)
group.command("forget-import")(imports.forget_import)
app.add_typer(group)


@group.callback(invoke_without_command=True)
def datasets(
    context: typer.Context,
    specialist: Annotated[str, typer.Option(help="List only datasets of this specialist.")] = "",
    limit: Annotated[int, typer.Option(min=1, help="Max datasets to list.")] = 50,
) -> None:
    """List datasets, newest first."""
    if context.invoked_subcommand:
        return
    session = session_of(context)
    request = registry_pb2.ListDatasetsRequest(specialist=specialist)
    items = first(limit, pages("registry", session.connections.registry.ListDatasets, request, "datasets"))
    columns = ("dataset", "specialist", "kind", "rows", "held out", "documents", "built")
    rows = [
        (
            short(item.digest),
            item.specialist,
            short_enum(models_pb2.DatasetKind.Name(item.kind), "DATASET_KIND_"),
            item.train_rows,
            item.held_out_rows,
            len(item.document_ids),
            item.create_time.ToJsonString(),
        )
        for item in items
    ]
    session.output.emit({"datasets": [to_dict(item) for item in items]}, shows(table("", columns, rows)))


@app.command()
def build(
    context: typer.Context,
    specialist: Annotated[str, typer.Argument(help="The specialist's name.")],
    kind: Annotated[
        DatasetKind, typer.Option(help="`sft`: from documents; `preference`: from experts' rankings.")
    ] = DatasetKind.SFT,
) -> None:
    """Build a specialist's dataset now; training then starts by itself. If nothing is new, show the existing dataset."""
    session = session_of(context)
    answer = build_dataset(session.connections.synthetic, specialist, new_id("req"), kind)
    dataset = answer.dataset
    state = "built" if answer.created else "exists; nothing is new"
    text = f"Dataset {short(dataset.digest)} {state}. {dataset.train_rows} rows, {dataset.held_out_rows} held out."
    left_out = _counts(answer.left_out)
    if left_out:
        text += f" Left out by filters: {', '.join(f'{name} {count}' for name, count in left_out.items())}."
    if kind is DatasetKind.PREFERENCE:
        text += f" Made from {', '.join(f'{count} {name}' for name, count in _counts(answer.pairs).items())}."
    session.output.emit(to_dict(answer), shows(text))


def build_dataset(
    synthetic: synthetic_pb2_grpc.SyntheticServiceStub,
    specialist: str,
    request_id: str,
    kind: DatasetKind = DatasetKind.SFT,
) -> synthetic_pb2.BuildDatasetResponse:
    """Build a dataset, or get the existing one if nothing is new. Idempotent for a repeated request id."""
    dataset_kind = models_pb2.DatasetKind.Value(f"DATASET_KIND_{kind.name}")
    request = synthetic_pb2.BuildDatasetRequest(specialist=specialist, request_id=request_id, kind=dataset_kind)
    return unary("synthetic", synthetic.BuildDataset, request, BUILD_SECONDS)


def _counts(message: Message) -> dict[str, int]:
    """The counts other than 0, by name."""
    return {name.replace("_", " "): count for name, count in to_dict(message).items() if count}
