"""The options of `tailor up` that put your own stores in the embedded ones' place."""

from pathlib import Path
from typing import Annotated, Any

import typer

from tailor.errors import InvalidArgument, Reason

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
