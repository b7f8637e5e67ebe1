"""The two kinds of stores that tests run on: the embedded ones, or Apache Kafka and MinIO. PostgreSQL is the same server for both."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from deploy.make_secrets import make
from tailor.local.layout import BROKER, STORE
from tests.real.fetch import Programs
from tests.real.servers import START_SECONDS, Server, run_kafka, run_minio
from tests.waiting import wait_for_port

Tables = Mapping[str, Mapping[str, Any]]


class StoreKind(Protocol):
    """A kind of stores."""

    name: str

    def run(self, directory: Path) -> Any:
        """A context in which stores of this kind run that belong to one stack; it yields the tables of `[stores]`."""
        ...

    def restart(self, directory: Path, component: str) -> bool:
        """Kill a store of the stack, start it again, and block until it listens. False if the stack itself runs that store."""
        ...


class EmbeddedStores(StoreKind):
    """The stack starts them itself."""

    name = "embedded"

    @contextmanager
    def run(self, directory: Path) -> Iterator[Tables]:
        del directory
        yield {}

    def restart(self, directory: Path, component: str) -> bool:
        del directory, component
        return False


class RealStores(StoreKind):
    """Apache Kafka with users and rules, and MinIO with keys. What Tailor needs there, `tailor up` makes as their administrator.

    With three brokers, topics have three copies, two of which must confirm.
    """

    name = "real"

    def __init__(self, programs: Programs, brokers: int = 1) -> None:
        self._programs = programs
        self._brokers = brokers
        self._servers: dict[Path, Mapping[str, Sequence[OwnServer]]] = {}

    @contextmanager
    def run(self, directory: Path) -> Iterator[Tables]:
        secrets = read_env(make(directory) / "kafka.env")
        init = read_env(directory / "secrets" / "init-topics.env")
        key = read_env(directory / "secrets" / "minio.env")
        with (
            run_kafka(self._programs, directory / "kafka", secrets, brokers=self._brokers) as kafka,
            run_minio(self._programs, directory / "minio", key["MINIO_ROOT_USER"], key["MINIO_ROOT_PASSWORD"]) as minio,
        ):
            self._servers[directory] = {
                BROKER: [OwnServer(broker.server, port_of(broker.internal)) for broker in kafka.brokers],
                STORE: [OwnServer(minio.server, port_of(minio.endpoint))],
            }
            yield {
                "kafka": {
                    "bootstrap_servers": kafka.internal,
                    "outside_servers": kafka.publishers,
                    "security_protocol": "SASL_PLAINTEXT",
                    "admin_username": init["TAILOR_KAFKA_SASL_USERNAME"],
                    "admin_password": init["TAILOR_KAFKA_SASL_PASSWORD"],
                    "admin_mechanism": init["TAILOR_KAFKA_SASL_MECHANISM"],
                    "replication_factor": self._brokers,
                    "min_insync_replicas": self._brokers // 2 + 1,
                },
                "s3": {
                    "endpoint": minio.endpoint,
                    "admin_access_key": minio.access_key,
                    "admin_secret_key": minio.secret_key,
                },
            }

    def servers(self, directory: Path) -> Mapping[str, Sequence["OwnServer"]]:
        """The servers of a stack that runs on stores of this kind, by component."""
        return self._servers[directory]

    def restart(self, directory: Path, component: str) -> bool:
        if component not in self._servers.get(directory, {}):
            return False
        for own in self._servers[directory][component]:
            own.server.kill()
            own.start()
        return True


@dataclass(frozen=True)
class OwnServer:
    """A server that no stack runs, and its port."""

    server: Server
    port: int

    def start(self) -> None:
        """Start it, and block until it listens."""
        self.server.start()
        wait_for_port(self.port, START_SECONDS)


def port_of(address: str) -> int:
    """The port of HOST:PORT."""
    return int(address.rpartition(":")[2])


def read_env(path: Path) -> dict[str, str]:
    """Read a file of NAME=value lines."""
    return dict(line.split("=", 1) for line in path.read_text(encoding="utf-8").splitlines())
