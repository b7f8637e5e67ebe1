"""`tailor up`, `down` and `status`: the embedded stack."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import grpc
import typer
from grpc_health.v1 import health_pb2, health_pb2_grpc
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from tailor.cli.connections import Connections
from tailor.cli.output import table
from tailor.cli.session import session_of
from tailor.errors import DeadlineExceeded, FailedPrecondition, Reason

if TYPE_CHECKING:
    from tailor.local.stack import Stack
    from tailor.local.state import Snapshot

UP_SECONDS = 180.0
HEALTH_SECONDS = 3.0
POLL_SECONDS = 0.2
STYLES = {"ready": "green", "failed": "red", "restarting": "yellow", "serving": "green"}


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("up")(up)
    app.command("down")(down)
    app.command("status")(status)


def up(
    context: typer.Context,
    wait_seconds: Annotated[float, typer.Option(help="How long the stack may take to become ready.")] = UP_SECONDS,
) -> None:
    """Start the embedded stack and wait until every part is healthy. Nothing happens where it runs already."""
    from tailor.local import stack

    session = session_of(context)
    show = Screen(session.output.notes)
    with show:
        snapshot = follow(stack.up(session.connections.state_dir), show, wait_seconds)
    document = describe(snapshot) | {"console_url": stack.connection(session.connections.state_dir).console_url}
    session.output.emit(document, lambda console: _print_places(console, session.connections))


def down(context: typer.Context) -> None:
    """Stop the embedded stack; no process of it is left. Its data stays in the state directory."""
    from tailor.local import stack

    session = session_of(context)
    stack.down(session.connections.state_dir)
    session.output.emit({"running": False}, lambda console: console.print("The stack is down."))


def status(context: typer.Context) -> None:
    """Show how every part is; exit status 1 unless all of them are ready."""
    from tailor.local import stack

    session = session_of(context)
    if session.connections.named:
        document = _healths(session.connections)
    else:
        snapshot = stack.status(session.connections.state_dir)
        document = describe(snapshot) if snapshot else {"running": False, "ready": False, "components": []}
    session.output.emit(document, lambda console: console.print(_components(document)))
    if not document["ready"]:
        raise typer.Exit(1)


def follow(stack: "Stack", show: Callable[["Snapshot"], None], timeout_seconds: float = UP_SECONDS) -> "Snapshot":
    """Show a starting stack until it is ready; FailedPrecondition where a component cannot start, DeadlineExceeded after the timeout."""
    deadline = time.monotonic() + timeout_seconds
    while True:
        snapshot = stack.snapshot()
        show(snapshot)
        if snapshot.ready:
            return snapshot
        failed = [component for component in snapshot.components.values() if component.state == "failed"]
        if failed:
            log = stack.layout.log_file(failed[0].name)
            raise FailedPrecondition(Reason.COMPONENT_FAILED, f"{failed[0].name} {failed[0].detail}; see {log}.")
        if time.monotonic() > deadline:
            raise DeadlineExceeded(Reason.STACK_NOT_READY, f"After {timeout_seconds:g} s: {waits(snapshot)}.")
        time.sleep(POLL_SECONDS)


def waits(snapshot: "Snapshot") -> str:
    """What is not ready, and what each of these waits for."""
    open_parts = [component for component in snapshot.components.values() if component.state != "ready"]
    return ", ".join(f"{part.name} ({part.detail or part.state})" for part in open_parts) or "everything is ready"


def describe(snapshot: "Snapshot") -> dict[str, Any]:
    """The stack as plain data."""
    components = [
        {
            "name": component.name,
            "state": component.state,
            "detail": component.detail,
            "restarts": component.restarts,
            "addresses": dict(component.addresses),
        }
        for component in snapshot.components.values()
    ]
    return {"running": snapshot.running, "ready": snapshot.running and snapshot.ready, "components": components}


class Screen:
    """A live table on a terminal; elsewhere a line whenever a part changes."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, transient=True) if console.is_terminal else None
        self._seen: dict[str, str] = {}

    def __enter__(self) -> None:
        if self._live:
            self._live.start()

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def __call__(self, snapshot: "Snapshot") -> None:
        """Show it."""
        if self._live:
            self._live.update(_components(describe(snapshot)))
            return
        for part in snapshot.components.values():
            if self._seen.get(part.name) != part.state:
                self._seen[part.name] = part.state
                self._console.print(f"{part.name}: {part.state} {part.detail}".rstrip(), highlight=False)


def _components(document: dict[str, Any]) -> Table:
    rows = [
        (
            part["name"],
            Text(part["state"], style=STYLES.get(part["state"], "")),
            part["detail"],
            " ".join(f"{name} {address}" for name, address in part["addresses"].items()),
            part["restarts"] or "",
        )
        for part in document["components"]
    ]
    return table("", ("part", "state", "waits for", "addresses", "restarts"), rows)


def _print_places(console: Console, connections: Connections) -> None:
    from tailor.local import stack

    place = stack.connection(connections.state_dir)
    console.print("The stack is up.")
    console.print(f"console    {place.console_url}  (password in {place.console_password_file})")
    console.print(f"broker     {place.publisher.bootstrap_servers}")
    console.print(f"inference  {place.service_addresses['inference']} (gRPC), {place.inference_url} (HTTP)")
    console.print(f"your key   in {place.operator_key_file}")


def _healths(connections: Connections) -> dict[str, Any]:
    parts = [_health(connections, service, address) for service, address in connections.named.items()]
    return {"running": True, "ready": all(part["state"] == "serving" for part in parts), "components": parts}


def _health(connections: Connections, service: str, address: str) -> dict[str, Any]:
    stub = health_pb2_grpc.HealthStub(connections.channel(service))
    try:
        answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=HEALTH_SECONDS)
        state, detail = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status).lower(), ""
    except grpc.RpcError as error:
        state, detail = "unreachable", error.code().name if isinstance(error, grpc.Call) else ""
    return {"name": service, "state": state, "detail": detail, "restarts": 0, "addresses": {"rpc": address}}
