"""`tailor held`: calls of data protection that wait for a second person."""

from collections.abc import Callable, Iterator
from typing import Annotated, Any

import typer
from google.protobuf.json_format import Parse
from google.protobuf.message import Message
from rich.text import Text

from tailor.api.anonymization.v1 import anonymization_pb2
from tailor.api.held.v1 import held_pb2
from tailor.api.registry.v1 import people_pb2, registry_pb2
from tailor.cli import ids
from tailor.cli.calls import first, pages, unary
from tailor.cli.connections import Connections
from tailor.cli.messages import short_enum, to_dict
from tailor.cli.output import shows, table
from tailor.cli.session import session_of
from tailor.errors import NotFound, Reason

app = typer.Typer(
    name="held",
    help="Calls that wait for a second person of data protection: list, approve, decline and repeat them.",
    no_args_is_help=True,
)

HeldCallId = Annotated[
    str,
    typer.Argument(metavar="ID", help="The held call's id, `hld_...`, or its first digits.", callback=ids.held_call_id),
]


@app.command("list")
def list_held(
    context: typer.Context, limit: Annotated[int, typer.Option(min=1, help="Max calls to list per service.")] = 50
) -> None:
    """List held calls, newest first, with who asked, who decided, and what became of them."""
    session = session_of(context)
    held_events = [
        (service, held) for service in ids.HOLDERS for held in first(limit, _pages(session.connections, service))
    ]
    columns = ("held call", "method", "request", "by key", "requested", "expires", "state", "decided by")
    rows = [
        (
            held.held_call_id,
            held.method,
            Text(held.request),
            held.requested_by,
            held.create_time.ToDatetime().strftime("%Y-%m-%d %H:%M"),
            held.expire_time.ToDatetime().strftime("%Y-%m-%d %H:%M"),
            short_enum(held_pb2.HeldCallState, held.state, "HELD_CALL_STATE_"),
            held.decided_by,
        )
        for _, held in held_events
    ]
    session.output.emit({"held_calls": [to_dict(held) for _, held in held_events]}, shows(table("", columns, rows)))


@app.command()
def approve(context: typer.Context, held_call: HeldCallId) -> None:
    """Let the key that made a call carry it out, once. Your key must be another one, with the role data-protection."""
    session = session_of(context)
    held = _decide(
        lambda service: (
            unary(
                service,
                session.connections.held_calls(service).ApproveHeldCall,
                held_pb2.ApproveHeldCallRequest(held_call_id=held_call),
            ).held_call
        )
    )
    done = f"Approved. {held.requested_by} can carry it out with `tailor held repeat {held.held_call_id}`."
    session.output.emit(to_dict(held), shows(done))


@app.command()
def decline(context: typer.Context, held_call: HeldCallId) -> None:
    """Refuse a held call for good."""
    session = session_of(context)
    held = _decide(
        lambda service: (
            unary(
                service,
                session.connections.held_calls(service).DeclineHeldCall,
                held_pb2.DeclineHeldCallRequest(held_call_id=held_call),
            ).held_call
        )
    )
    session.output.emit(to_dict(held), shows("Declined."))


@app.command()
def repeat(context: typer.Context, held_call: HeldCallId) -> None:
    """Carry out your own call after its approval, exactly as it was made, and show its result."""
    session = session_of(context)
    connections = session.connections
    held_events = ((service, held) for service in ids.HOLDERS for held in _pages(connections, service))
    service, held = next(((name, item) for name, item in held_events if item.held_call_id == held_call), ("", None))
    if held is None:
        raise _unknown()
    calls: dict[str, tuple[Callable[..., Message], Message]] = {
        "Reidentify": (connections.anonymization.Reidentify, anonymization_pb2.ReidentifyRequest()),
        "Erase": (connections.registry.Erase, registry_pb2.EraseRequest()),
        "CreateKey": (connections.registry.CreateKey, registry_pb2.CreateKeyRequest()),
        "InvitePerson": (connections.people.InvitePerson, people_pb2.InvitePersonRequest()),
        "RenewInvitation": (connections.people.RenewInvitation, people_pb2.RenewInvitationRequest()),
    }
    call, request = calls[held.method]
    Parse(held.request, request)
    request.held_call_id = held_call  # type: ignore[attr-defined]
    answer = unary(service, call, request)
    session.output.emit(to_dict(answer), shows(Text(_result(answer))))


def _pages(connections: Connections, service: str) -> Iterator[held_pb2.HeldCall]:
    stub = connections.held_calls(service)
    return pages(service, stub.ListHeldCalls, held_pb2.ListHeldCallsRequest(page_size=200), "held_calls")


def _decide(ask: Callable[[str], held_pb2.HeldCall]) -> held_pb2.HeldCall:
    """Ask the service that holds the call; its id does not name it."""
    for service in ids.HOLDERS:
        try:
            return ask(service)
        except NotFound:
            continue
    raise _unknown()


def _result(answer: Any) -> str:
    if isinstance(answer, anonymization_pb2.ReidentifyResponse):
        return answer.value
    if isinstance(answer, registry_pb2.CreateKeyResponse):
        return f"{answer.key.key_id}. Its secret is not shown again: {answer.secret}"
    if isinstance(answer, people_pb2.InvitePersonResponse | people_pb2.RenewInvitationResponse):
        code = f" The code of the invitation is not shown again: {answer.code}" if answer.code else ""
        return f"{answer.person.person_id} is invited.{code}"
    return f"{answer.erasure.erasure_id}: `tailor erasure show {answer.erasure.erasure_id}` shows its receipt."


def _unknown() -> NotFound:
    return NotFound(Reason.UNKNOWN_HELD_CALL, "No such call is held. `tailor held list` lists them.")
