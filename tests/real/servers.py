"""Apache Kafka and MinIO as processes of a test, on free ports of this machine, stopped at the end.

Kafka starts from the settings of docker-compose.yml, translated by the program that its image uses: only addresses and folders differ.
"""

import os
import random
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.real.fetch import Programs
from tests.waiting import wait_for_port, wait_until

ROOT = Path(__file__).parents[2]
CLUSTER_ID = "qMRNi5aYQDqvQyYqvQyYqg"
START_SECONDS = 90.0
LOOPBACK = "127.0.0.1"
LOG4J = """Configuration:
  Appenders: {Console: {name: STDOUT, PatternLayout: {pattern: "%d %p %c %m%n"}}}
  Loggers: {Root: {level: WARN, AppenderRef: [{ref: STDOUT}]}}
"""


def free_ports(count: int, host: str = LOOPBACK) -> list[int]:
    """Ports of an address that nobody uses at the moment, outside of the ranges of embedded stacks and of outgoing connections."""
    with ExitStack() as sockets:
        ports: list[int] = []
        while len(ports) < count:
            probe = sockets.enter_context(socket.socket())
            with suppress(OSError):
                probe.bind((host, random.randrange(10_000, 20_000)))
                ports.append(probe.getsockname()[1])
        return ports


def compose_environment() -> dict[str, str]:
    """The settings of the broker in docker-compose.yml."""
    compose: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
    return dict(compose["services"]["kafka"]["environment"])


@dataclass
class Server:
    """A process of this machine."""

    command: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    def start(self) -> None:
        """Start it. Returns before it is ready."""
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                self.command,
                env=dict(self.environment),
                stdout=output,
                stderr=output,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )

    def kill(self) -> None:
        """Kill it at once."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """Ask it to end, and kill it if it does not."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.kill()


@dataclass(frozen=True)
class Broker:
    """One broker of a Kafka cluster."""

    server: Server
    internal: str
    publishers: str


@dataclass(frozen=True)
class Kafka:
    """A running cluster."""

    brokers: tuple[Broker, ...]

    @property
    def internal(self) -> str:
        """The addresses of the services' listener."""
        return ",".join(broker.internal for broker in self.brokers)

    @property
    def publishers(self) -> str:
        """The addresses of the publishers' listener."""
        return ",".join(broker.publishers for broker in self.brokers)


@contextmanager
def run_kafka(
    programs: Programs,
    directory: Path,
    secrets: Mapping[str, str],
    *,
    brokers: int = 1,
    host: str = LOOPBACK,
    more_listeners: Mapping[str, tuple[int, str]] | None = None,
    extra: Mapping[str, str] | None = None,
) -> Iterator[Kafka]:
    """Run a cluster with the broker's own `secrets`, as its image reads them in compose.

    `host` is the address of the listeners of services and publishers. `more_listeners` has ports and protocols by name; `extra` overrides
    settings of compose, in the image's form (`KAFKA_...`).
    """
    ports = free_ports(3 * brokers, host)
    places = [ports[3 * number : 3 * number + 3] for number in range(brokers)]
    voters = ",".join(f"{number + 1}@127.0.0.1:{place[2]}" for number, place in enumerate(places))
    with ExitStack() as cleanup:
        started = []
        for number, place in enumerate(places):
            environment = compose_environment() | dict(secrets) | _listeners(host, place, more_listeners or {})
            environment |= {
                "KAFKA_NODE_ID": str(number + 1),
                "KAFKA_CONTROLLER_QUORUM_VOTERS": voters,
                "KAFKA_LOG_DIRS": str(directory / f"broker-{number + 1}" / "data"),
            }
            if brokers > 1:
                environment["KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR"] = str(brokers)
            server = _configure(programs, directory / f"broker-{number + 1}", environment | dict(extra or {}))
            server.start()
            cleanup.callback(server.stop)
            started.append(Broker(server, f"{host}:{place[0]}", f"{host}:{place[1]}"))
        for place in places:
            wait_for_port(place[0], START_SECONDS, host)
        yield Kafka(tuple(started))


def _listeners(host: str, place: Sequence[int], more: Mapping[str, tuple[int, str]]) -> dict[str, str]:
    internal, publishers, controller = place
    outside = [f"INTERNAL://{host}:{internal}", f"PUBLISHERS://{host}:{publishers}"]
    outside += [f"{name}://localhost:{port}" for name, (port, _) in more.items()]
    protocols = compose_environment()["KAFKA_LISTENER_SECURITY_PROTOCOL_MAP"]
    return {
        "KAFKA_LISTENERS": ",".join([*outside, f"CONTROLLER://127.0.0.1:{controller}"]),
        "KAFKA_ADVERTISED_LISTENERS": ",".join(outside),
        "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": ",".join(
            [protocols, *(f"{name}:{protocol}" for name, (_, protocol) in more.items())]
        ),
    }


def _configure(programs: Programs, directory: Path, environment: Mapping[str, str]) -> Server:
    """Write the broker's properties and format its storage, as the image does when it starts."""
    folders = {name: directory / name for name in ("default", "mounted", "final")}
    for path in folders.values():
        path.mkdir(parents=True, exist_ok=True)
    (folders["default"] / "server.properties").write_text("", encoding="utf-8")
    for name in ("log4j2.yaml", "tools-log4j2.yaml"):
        (folders["default"] / name).write_text(LOG4J, encoding="utf-8")
    arguments = [word for name, path in folders.items() for word in (f"--{name}-configs-dir", str(path))]
    variables = {"PATH": os.environ["PATH"], "CLUSTER_ID": CLUSTER_ID} | dict(environment)
    command = [*programs.java, "kafka.docker.KafkaDockerWrapper", "setup", *arguments]
    subprocess.run(command, env=variables, check=True, capture_output=True, timeout=120)
    run = [*programs.java[:1], f"-Dlog4j2.configurationFile={folders['final'] / 'log4j2.yaml'}", *programs.java[1:]]
    run += ["kafka.Kafka", str(folders["final"] / "server.properties")]
    return Server(run, {"PATH": os.environ["PATH"]}, directory / "log")


@dataclass(frozen=True)
class Minio:
    """A running MinIO and its administrator's key."""

    server: Server
    endpoint: str
    access_key: str
    secret_key: str


@contextmanager
def run_minio(
    programs: Programs, directory: Path, access_key: str, secret_key: str, host: str = LOOPBACK
) -> Iterator[Minio]:
    """Run MinIO on one folder and an address."""
    directory.mkdir(parents=True, exist_ok=True)
    (port,) = free_ports(1, host)
    address = f"{host}:{port}"
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(directory),
        "MINIO_ROOT_USER": access_key,
        "MINIO_ROOT_PASSWORD": secret_key,
        "MINIO_BROWSER": "off",
        "MINIO_UPDATE": "off",
    }
    command = [str(programs.minio), "server", str(directory / "data"), "--address", address]
    server = Server(command, environment, directory / "log")
    server.start()
    try:
        wait_until(lambda: _is_ready(address), START_SECONDS, "MinIO")
        yield Minio(server, address, access_key, secret_key)
    finally:
        server.stop()


def _is_ready(address: str) -> bool:
    time.sleep(0.1)
    try:
        with urllib.request.urlopen(f"http://{address}/minio/health/ready", timeout=30) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
