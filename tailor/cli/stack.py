"""`tailor up`, `down` and `status`: the embedded stack."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

import grpc
import typer
from grpc_health.v1 import health_pb2, health_pb2_grpc
from rich.console import Console
from rich.live import Live
from rich.text import Text

from tailor.api.events.v1.operations_pb2 import GetEventStatusRequest
from tailor.cli.connections import SERVICES, Connections
from tailor.cli.messages import to_dict
from tailor.cli.session import CommandSession
from tailor.cli.tables import emit_list, list_table
from tailor.columns import columns
from tailor.errors import InvalidArgument, Reason, TailorError

Kafka = Annotated[
    str, typer.Option("--kafka", metavar="HOST:PORT", help="Your own Kafka; the embedded broker does not start.")
]
KafkaAdmin = Annotated[
    str, typer.Option(metavar="USER", help="Kafka's administrator, who creates topics, users and rules there.")
]
KafkaAdminPassword = Annotated[
    str, typer.Option(envvar="TAILOR_KAFKA_ADMIN_PASSWORD", help="The administrator's password.", show_envvar=True)
]
KafkaProtocol = Annotated[
    str,
    typer.Option(
        metavar="PROTOCOL",
        help="SASL_SSL, SASL_PLAINTEXT, SSL or PLAINTEXT; by default SASL_SSL with an administrator.",
    ),
]
KafkaReplicas = Annotated[
    int,
    typer.Option(min=1, max=9, help="Copies of each topic; all but one must confirm a record. 1 for a single broker."),
]
KafkaCaFile = Annotated[Path | None, typer.Option(help="The CA that signed Kafka's certificate.")]
S3 = Annotated[
    str, typer.Option("--s3", metavar="HOST:PORT", help="Your own object store; the embedded one does not start.")
]
S3Admin = Annotated[str, typer.Option(metavar="KEY", help="The administrator's access key, for MinIO.")]
S3AdminSecret = Annotated[
    str, typer.Option(envvar="TAILOR_S3_ADMIN_SECRET_KEY", help="The administrator's secret key.", show_envvar=True)
]
S3Secure = Annotated[bool, typer.Option("--s3-tls", help="Use TLS to the object store.")]
Database = Annotated[
    str, typer.Option("--database", metavar="HOST:PORT", help="Your own PostgreSQL; the embedded one does not start.")
]
DatabaseAdmin = Annotated[str, typer.Option(metavar="USER", help="PostgreSQL's administrator.")]
DatabaseAdminPassword = Annotated[
    str, typer.Option(envvar="TAILOR_DATABASE_ADMIN_PASSWORD", help="The administrator's password.", show_envvar=True)
]


def kafka_table(
    address: str, admin: str, password: str, *, protocol: str, replicas: int, ca_file: Path | None
) -> dict[str, Any]:
    """The `[stores.kafka]` table of the options; empty without an address."""
    _need_address("--kafka", address, admin)
    if not address:
        return {}
    table: dict[str, Any] = {
        "bootstrap_servers": address,
        "security_protocol": protocol or ("SASL_SSL" if admin else "PLAINTEXT"),
        "admin_username": admin,
        "admin_password": password if admin else "",
        "replication_factor": replicas,
        "min_insync_replicas": max(1, replicas - 1),
    }
    return table if ca_file is None else table | {"ca_file": str(ca_file.resolve())}


def s3_table(endpoint: str, admin: str, secret: str, *, secure: bool) -> dict[str, Any]:
    """The `[stores.s3]` table of the options; empty without an address."""
    _need_address("--s3", endpoint, admin)
    if not endpoint:
        return {}
    key = {"admin_access_key": admin, "admin_secret_key": secret if admin else ""}
    return {"endpoint": endpoint, "secure": secure, **key}


def database_table(address: str, admin: str, password: str) -> dict[str, Any]:
    """The `[stores.database]` table of the options; empty without an address."""
    if not address:
        return {}
    return {"address": address, "admin_username": admin, "admin_password": password}


def _need_address(option: str, address: str, admin: str) -> None:
    if admin and not address:
        raise InvalidArgument(Reason.INVALID_REQUEST, f"{option}-admin is of no use without {option} HOST:PORT.")


if TYPE_CHECKING:
    from tailor.local.stack import Connection
    from tailor.local.state import StackSnapshot

UP_SECONDS = 180.0
HEALTH_SECONDS = 3.0
STYLES = {"ready": "green", "failed": "red", "restarting": "yellow", "serving": "green"}


def up(
    session: CommandSession,
    wait_seconds: Annotated[
        float, typer.Option(help="Fail if the stack is not ready after this many seconds.")
    ] = UP_SECONDS,
    *,
    kafka: Kafka = "",
    kafka_admin: KafkaAdmin = "",
    kafka_admin_password: KafkaAdminPassword = "",
    kafka_protocol: KafkaProtocol = "",
    kafka_replicas: KafkaReplicas = 3,
    kafka_ca_file: KafkaCaFile = None,
    s3: S3 = "",
    s3_admin: S3Admin = "",
    s3_admin_secret: S3AdminSecret = "",
    s3_tls: S3Secure = False,
    database: Database = "",
    database_admin: DatabaseAdmin = "postgres",
    database_admin_password: DatabaseAdminPassword = "",
) -> None:
    """Start the stack and wait until every part is healthy. Has no effect if it already runs.

    Its stores are embedded, for one user's machine: the embedded broker requires no credentials. Your own stores are used instead if
    you name them here or in the `[stores]` table of settings.toml.
    """
    from tailor.local import stack

    tables = {
        "kafka": kafka_table(
            kafka,
            kafka_admin,
            kafka_admin_password,
            protocol=kafka_protocol,
            replicas=kafka_replicas,
            ca_file=kafka_ca_file,
        ),
        "s3": s3_table(s3, s3_admin, s3_admin_secret, secure=s3_tls),
        "database": database_table(database, database_admin, database_admin_password),
    }
    chosen = {name: table for name, table in tables.items() if table}
    with Screen(session.output.notes) as show:
        snapshot = stack.up(session.connections.state_dir, own_stores=chosen).wait_ready(wait_seconds, show)
    document = describe(snapshot) | {"console_url": stack.connection(session.connections.state_dir).console_url}
    session.output.emit(document, _list_places(session.connections))


def down(session: CommandSession) -> None:
    """Stop the embedded stack and every process of it. Its data stays in the state directory."""
    from tailor.local import stack

    stack.down(session.connections.state_dir)
    session.output.emit({"running": False}, "The stack is stopped.")


def status(session: CommandSession) -> None:
    """Show the state of every part. The exit status is 1 unless all parts are ready."""
    from tailor.local import stack

    snapshot = stack.status(session.connections.state_dir)
    if not _names_stack(session.connections.named, snapshot):
        document = _check_services(session.connections)
    else:
        document = describe(snapshot) if snapshot else {"running": False, "ready": False, "components": []}
    if document["running"]:
        _add_faults(session.connections, document)
    emit_list(session, document["components"], PARTS, document=document, empty="The stack does not run.")
    if not document["ready"]:
        raise typer.Exit(1)


def _names_stack(named: Mapping[str, str], snapshot: "StackSnapshot | None") -> bool:
    """True if no address is named, or only those of this stack, as after `eval "$(tailor env)"`."""
    ports = snapshot.ports if snapshot else None
    return all(ports and ports.address(f"{service}-rpc") == address for service, address in named.items())


def describe(snapshot: "StackSnapshot") -> dict[str, Any]:
    """The snapshot as plain data."""
    components = [
        {
            "name": component.name,
            "state": component.state,
            "detail": component.detail,
            "restarts": component.restarts,
            "last_end": component.last_end,
            "addresses": dict(component.addresses),
        }
        for component in snapshot.components.values()
    ]
    return {"running": snapshot.running, "ready": snapshot.running and snapshot.ready, "components": components}


class Screen:
    """Shows a stack while it starts: a live table on a terminal, elsewhere a line for each change of a part."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, transient=True) if console.is_terminal else None
        self._seen: dict[str, str] = {}

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def __call__(self, snapshot: "StackSnapshot") -> None:
        """Show the current state."""
        if self._live:
            self._live.update(list_table(PARTS, describe(snapshot)["components"]))
            return
        for part in snapshot.components.values():
            if self._seen.get(part.name) != part.state:
                self._seen[part.name] = part.state
                self._console.print(f"{part.name}: {part.state} {part.detail}".rstrip(), highlight=False)


def _describe_restarts(part: dict[str, Any]) -> str:
    return f"{part['restarts']} ({part['last_end']})" if part["last_end"] else ""


PARTS = columns(
    None,
    ("part", lambda part: part["name"]),
    ("state", lambda part: Text(part["state"], style=STYLES.get(part["state"], ""))),
    ("waits for", lambda part: part["detail"]),
    ("addresses", lambda part: " ".join(f"{name} {address}" for name, address in part["addresses"].items())),
    ("restarts", _describe_restarts),
)


def _list_places(connections: Connections) -> Iterator[str]:
    from tailor.local import stack

    place = stack.connection(connections.state_dir)
    yield "The stack is running."
    yield f"console    {place.console_url}  (the password is in {place.console_password_file})"
    yield f"broker     {place.publisher.kafka_bootstrap_servers}{_describe_broker(place)}"
    yield f"inference  {place.service_addresses['inference']} (gRPC), {place.inference_url} (HTTP)"
    yield f"your key   is in {place.operator_key_file}"


def _describe_broker(place: "Connection") -> str:
    """Who may use the broker."""
    if place.own_stores.kafka is None:
        return "  (embedded: for this machine's one user, because it requires no credentials)"
    if not place.own_stores.kafka.has_users:
        return "  (your own; it requires no credentials, so protect it otherwise)"
    return f"  (your own; the publisher's password is in {place.publisher_password_file})"


def _check_services(connections: Connections) -> dict[str, Any]:
    parts = [_check_service(connections, service, address) for service, address in connections.named.items()]
    return {"running": True, "ready": all(part["state"] == "serving" for part in parts), "components": parts}


def _add_faults(connections: Connections, document: dict[str, Any]) -> None:
    """Add to each service what does not work in it. A service with a part that waits is not ready."""
    for part in document["components"]:
        if part["name"] not in SERVICES or part["state"] not in ("ready", "serving"):
            continue
        try:
            stub = connections.events(part["name"])
            status = stub.GetEventStatus(GetEventStatusRequest(), timeout=HEALTH_SECONDS)
        except TailorError:
            # The part's state already says whether it answers; an older one has no such call.
            continue
        part["faults"] = [to_dict(fault) for fault in status.faults]
        part["backlogs"] = [to_dict(backlog) for backlog in status.backlogs]
        part["detail"] = " ".join(f"{fault.part}: {fault.reason}. {fault.message}" for fault in status.faults)
        if any(fault.waits for fault in status.faults):
            part["state"], document["ready"] = "waiting", False


def _check_service(connections: Connections, service: str, address: str) -> dict[str, Any]:
    stub = health_pb2_grpc.HealthStub(connections.channel(service))
    try:
        answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=HEALTH_SECONDS)
        state, detail = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status).lower(), ""
    except grpc.RpcError as error:
        state, detail = "unreachable", error.code().name if isinstance(error, grpc.Call) else ""
    return {
        "name": service,
        "state": state,
        "detail": detail,
        "restarts": 0,
        "last_end": "",
        "addresses": {"rpc": address},
    }
