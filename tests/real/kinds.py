"""The two kinds of stores that tests run on: the embedded ones, or Apache Kafka and MinIO. PostgreSQL is the same server for both."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
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
    """Apache Kafka with users and rules, and MinIO with keys. What Tailor needs there, `tailor up` makes as their administrator."""

    name = "real"

    def __init__(self, programs: Programs) -> None:
        self._programs = programs
        self._servers: dict[tuple[Path, str], tuple[Server, str]] = {}

    @contextmanager
    def run(self, directory: Path) -> Iterator[Tables]:
        secrets = read_env(make(directory) / "kafka.env")
        init = read_env(directory / "secrets" / "init-topics.env")
        key = read_env(directory / "secrets" / "minio.env")
        with (
            run_kafka(self._programs, directory / "kafka", secrets) as kafka,
            run_minio(self._programs, directory / "minio", key["MINIO_ROOT_USER"], key["MINIO_ROOT_PASSWORD"]) as minio,
        ):
            self._servers[directory, BROKER] = (kafka.brokers[0].server, kafka.brokers[0].internal)
            self._servers[directory, STORE] = (minio.server, minio.endpoint)
            yield {
                "kafka": {
                    "bootstrap_servers": kafka.internal,
                    "outside_servers": kafka.publishers,
                    "security_protocol": "SASL_PLAINTEXT",
                    "admin_username": init["TAILOR_KAFKA_SASL_USERNAME"],
                    "admin_password": init["TAILOR_KAFKA_SASL_PASSWORD"],
                    "admin_mechanism": init["TAILOR_KAFKA_SASL_MECHANISM"],
                    "replication_factor": 1,
                    "min_insync_replicas": 1,
                },
                "s3": {
                    "endpoint": minio.endpoint,
                    "admin_access_key": minio.access_key,
                    "admin_secret_key": minio.secret_key,
                },
            }

    def restart(self, directory: Path, component: str) -> bool:
        if (directory, component) not in self._servers:
            return False
        server, address = self._servers[directory, component]
        server.kill()
        server.start()
        wait_for_port(int(address.rpartition(":")[2]), START_SECONDS)
        return True


def read_env(path: Path) -> dict[str, str]:
    """Read a file of NAME=value lines."""
    return dict(line.split("=", 1) for line in path.read_text(encoding="utf-8").splitlines())
