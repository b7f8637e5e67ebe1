"""`tailor specialist origins` and `admit`: where a specialist's documents come from, and what waits until somebody has looked at it."""

from functools import partial
from typing import Annotated

import typer

from tailor.api.synthetic.v1 import synthetic_pb2
from tailor.cli.calls import pages
from tailor.cli.options import SpecialistName, listed
from tailor.cli.session import CommandSession
from tailor.cli.tables import emit_list
from tailor.columns import columns, moment, read

# Lists are counted when they are asked for, over all documents.
LIST_SECONDS = 60.0
KINDS = {"source": "documents and deliverables", "examples": "examples", "tests": "golden documents"}


@listed
def origins(session: CommandSession, request: synthetic_pb2.ListOriginsRequest, specialist: SpecialistName) -> None:
    """List where a specialist's documents come from; what waits for a look stands first.

    `tailor dataset rows SPECIALIST --new` shows rows that the new documents would give.
    """
    request.specialist = specialist
    found = _list(session, request)
    waits = any(map(_waits, found))
    remarks = [f"Admit what you have looked at: tailor specialist admit {specialist}"] * waits
    empty = "The specialist selects no document."
    emit_list(session, found, COLUMNS, document={"origins": found}, empty=empty, remarks=remarks)


def admit(
    session: CommandSession,
    specialist: SpecialistName,
    *,
    kind: Annotated[str, typer.Option(help=f"Only of this kind: {', '.join(KINDS)}.")] = "",
    name: Annotated[str, typer.Option(help="Only the source or publisher with this name; needs --kind.")] = "",
) -> None:
    """Let a specialist learn from the sources and publishers that wait, from its next build on. By default, from all of them."""
    if kind and kind not in KINDS:
        raise typer.BadParameter(f"must be one of {', '.join(KINDS)}", param_hint="--kind")
    if name and not kind:
        raise typer.BadParameter("needs --kind", param_hint="--name")
    chosen = [
        origin
        for origin in _list(session, synthetic_pb2.ListOriginsRequest(specialist=specialist))
        if _waits(origin) and kind in ("", _kind_of(origin)) and name in ("", origin.name)
    ]
    for origin in chosen:
        request = synthetic_pb2.AdmitOriginRequest(specialist=specialist, kind=origin.kind, name=origin.name)
        session.connections.synthetic.AdmitOrigin(request)
    lines = [
        f"Admitted: {origin.documents:,} {KINDS[_kind_of(origin)]} of {origin.name or '(none)'}." for origin in chosen
    ]
    session.output.emit({"admitted": chosen}, lines or "Nothing of that waits.")


def _list(session: CommandSession, request: synthetic_pb2.ListOriginsRequest) -> list[synthetic_pb2.Origin]:
    return [*pages(partial(session.connections.synthetic.ListOrigins, timeout=LIST_SECONDS), request)]


def _kind_of(origin: synthetic_pb2.Origin) -> str:
    return str(read(origin, "kind"))


def _waits(origin: synthetic_pb2.Origin) -> bool:
    return not origin.HasField("admit_time")


def _describe_state(origin: synthetic_pb2.Origin) -> str:
    if _waits(origin):
        return "waits"
    return f"{moment(origin.admit_time)} {origin.admitted_by}".strip()


COLUMNS = columns(
    synthetic_pb2.Origin,
    "kind, name=name or '(none)', documents, published by=publishers",
    ("admitted", _describe_state),
)
