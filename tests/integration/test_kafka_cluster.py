"""What only Apache Kafka shows: replicas and a killed broker, growth, timestamps, and users with certificates and tokens."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import kafka
import pytest
from kafka.admin import KafkaAdminClient
from kafka.errors import KafkaError

from deploy.make_secrets import make
from tailor.api.events.v1 import models_pb2
from tailor.errors import Unavailable
from tailor.events.consumer import Consumer, Handler
from tailor.events.envelope import Event
from tailor.events.memory import MemoryProducer
from tailor.events.producer import KafkaProducer
from tailor.events.topics import load_topics
from tailor.settings import KafkaSettings
from tests.real.certificates import make_certificates
from tests.real.fetch import Programs, fetch, folder
from tests.real.kinds import StoreKind, port_of, read_env
from tests.real.servers import Kafka, free_ports, run_kafka
from tests.waiting import wait_for_port, wait_until

pytestmark = [pytest.mark.integration, pytest.mark.slow]

EVENTS = 600
# As long as a broker was once away while documents waited for 30 to 50 s after its return.
AWAY_SECONDS = 20.0
RETURN_SECONDS = 10.0
JAAS = "org.apache.kafka.common.security"


@pytest.fixture(scope="module")
def programs(store_kind: StoreKind) -> Programs:
    if store_kind.name == "embedded":
        pytest.skip("needs Apache Kafka; `make test-real` runs these")
    return fetch(folder())


@dataclass(frozen=True)
class Cluster:
    """A cluster with the secrets of its users."""

    kafka: Kafka
    secrets: Path

    def settings(self, user: str) -> KafkaSettings:
        """The settings of a service."""
        environment = read_env(self.secrets / f"{user}.env")
        return KafkaSettings(
            kafka_bootstrap_servers=self.kafka.internal,
            kafka_security_protocol="SASL_PLAINTEXT",
            kafka_sasl_username=environment["TAILOR_KAFKA_SASL_USERNAME"],
            kafka_sasl_password=environment["TAILOR_KAFKA_SASL_PASSWORD"],
        )

    def init_topics(self, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
        """Run the init program as the administrator."""
        environment = os.environ | read_env(self.secrets / "init-topics.env") | settings
        environment |= {
            "TAILOR_KAFKA_BOOTSTRAP_SERVERS": self.kafka.internal,
            "TAILOR_KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT",
            "TAILOR_STORES_FILE": str(self.secrets / "stores.json"),
        }
        command = [sys.executable, "-m", "deploy.init.topics", *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)


@pytest.fixture(scope="module")
def cluster(programs: Programs, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three brokers with the settings of compose, and the topics with the default of three copies, two of which must confirm."""
    directory = tmp_path_factory.mktemp("cluster")
    secrets = make(directory)
    with run_kafka(programs, directory / "kafka", read_env(secrets / "kafka.env"), brokers=3) as running:
        made = Cluster(running, secrets)
        outcome = made.init_topics()
        assert outcome.returncode == 0, outcome.stderr
        yield made


def test_topics_have_three_copies_and_rules_stay_when_it_runs_again(cluster: Cluster) -> None:
    again = cluster.init_topics()
    assert again.returncode == 0, again.stderr
    assert not [line for line in again.stdout.splitlines() if line.startswith(("created", "allowed", "took"))]
    with closing(KafkaAdminClient(**_admin(cluster).kafka_arguments())) as admin:
        described = {entry["name"]: entry["partitions"] for entry in admin.describe_topics(list(load_topics()))}
    assert {name: len(partitions) for name, partitions in described.items()} == {
        name: topic.partitions for name, topic in load_topics().items()
    }
    assert {len(partition["replica_nodes"]) for entry in described.values() for partition in entry} == {3}


def test_the_retention_of_a_record_counts_from_its_arrival(cluster: Cluster) -> None:
    settings = cluster.settings("training")
    with closing(kafka.KafkaProducer(**settings.kafka_arguments())) as producer:
        sent = producer.send("run.failed.v1", key=b"old", value=b"old", timestamp_ms=1_000_000_000_000).get(20)
    assert abs(sent.timestamp / 1000 - time.time()) < 300


def test_a_topic_grows_by_the_command_and_its_events_arrive(cluster: Cluster) -> None:
    larger = {"TAILOR_KAFKA_PARTITIONS": json.dumps({"run.progressed.v1": 5})}
    refused = cluster.init_topics(**larger)
    assert refused.returncode != 0
    assert "--grow" in refused.stderr
    grown = cluster.init_topics("--grow", **larger)
    assert grown.returncode == 0, grown.stderr
    assert "run.progressed.v1: 3 partitions became 5" in grown.stdout
    assert "too few" in cluster.init_topics(TAILOR_KAFKA_PARTITIONS='{"run.progressed.v1": 2}').stderr


def test_a_rule_that_is_no_longer_listed_is_taken_away(cluster: Cluster) -> None:
    more = cluster.init_topics(TAILOR_KAFKA_PUBLISHERS='["publisher", "operator"]', TAILOR_KAFKA_PARTITIONS=GROWN)
    assert "allowed operator to WRITE topic document.submitted.v1" in more.stdout
    less = cluster.init_topics(TAILOR_KAFKA_PARTITIONS=GROWN)
    assert less.stdout.count("took away") == 1, less.stdout + less.stderr


GROWN = json.dumps({"run.progressed.v1": 5})


def _admin(cluster: Cluster) -> KafkaSettings:
    environment = read_env(cluster.secrets / "init-topics.env")
    return KafkaSettings(
        kafka_bootstrap_servers=cluster.kafka.internal,
        kafka_security_protocol="SASL_PLAINTEXT",
        kafka_sasl_mechanism=environment["TAILOR_KAFKA_SASL_MECHANISM"],
        kafka_sasl_username=environment["TAILOR_KAFKA_SASL_USERNAME"],
        kafka_sasl_password=environment["TAILOR_KAFKA_SASL_PASSWORD"],
    )


def test_a_killed_broker_of_three_loses_nothing(cluster: Cluster) -> None:
    seen: list[str] = []
    settings, stop = cluster.settings("registry"), threading.Event()
    consumer = Consumer(
        settings,
        service="registry",
        topics={"run.failed.v1": lambda event: seen.append(event.key)},
        producer=MemoryProducer(),
    )
    reader = threading.Thread(target=consumer.run, args=(stop,))
    reader.start()
    producer = KafkaProducer.from_settings(cluster.settings("training"), "training")
    expected = {f"run_{number}" for number in range(EVENTS)}
    try:
        for number in range(EVENTS):
            if number == EVENTS // 3:
                cluster.kafka.brokers[1].server.kill()
            if number == 2 * EVENTS // 3:
                cluster.kafka.brokers[1].server.start()
            _send(producer, f"run_{number}")
        wait_until(lambda: expected <= set(seen), 90)
    finally:
        stop.set()
        producer.close()
        reader.join(60)
    assert expected <= set(seen)
    print(f"{EVENTS} events, {sum(key in expected for key in seen)} handlings while one of three brokers was killed")


def test_two_installations_share_a_broker_and_events_flow_within_seconds_of_its_return(
    programs: Programs, tmp_path: Path
) -> None:
    secrets = make(tmp_path)
    prefixes = {"TAILOR_KAFKA_TOPIC_PREFIX": "acme.", "TAILOR_KAFKA_GROUP_PREFIX": "acme-"}
    single = {"TAILOR_KAFKA_REPLICATION_FACTOR": "1", "TAILOR_KAFKA_MIN_INSYNC_REPLICAS": "1"}
    with run_kafka(programs, tmp_path / "kafka", read_env(secrets / "kafka.env")) as kafka_server:
        shared = Cluster(kafka_server, secrets)
        # Each has its own principals, so that neither takes away the rules of the other.
        for variables in ({}, prefixes | {"TAILOR_KAFKA_PRINCIPAL": "User:acme-{name}"}):
            outcome = shared.init_topics(**single, **variables)
            assert outcome.returncode == 0, outcome.stderr
            assert "warning" not in outcome.stdout
        seen: dict[str, list[str]] = {"tailor": [], "acme": []}
        with ExitStack() as cleanup:
            killed = threading.Event()

            def handle(event: Event) -> None:
                # The broker is killed before this event can be committed; the other installation is idle then.
                seen["tailor"].append(event.key)
                killed.wait(60)

            plain = _joined(shared, {}, handle, cleanup)
            acme = _joined(shared, prefixes, lambda event: seen["acme"].append(event.key), cleanup)
            for key, producer in (("run_1", plain), ("run_2", acme)):
                _send(producer, key)
            wait_until(lambda: seen == {"tailor": ["run_1"], "acme": ["run_2"]}, 60)
            _kill_for(shared, AWAY_SECONDS, killed)
            began = time.monotonic()
            for key, producer in (("run_3", plain), ("run_4", acme)):
                _send(producer, key)
            wait_until(lambda: "run_3" in seen["tailor"] and "run_4" in seen["acme"], RETURN_SECONDS)
            print(f"{time.monotonic() - began:.1f} s from the open port of a returned broker to handled events")
        assert not {"run_2", "run_4"} & set(seen["tailor"])
        assert not {"run_1", "run_3"} & set(seen["acme"])


def _joined(cluster: Cluster, prefixes: Mapping[str, str], handle: Handler, cleanup: ExitStack) -> KafkaProducer:
    """A consumer of an installation, and a producer."""
    fields = {name.removeprefix("TAILOR_").lower(): value for name, value in prefixes.items()}

    def settings(user: str) -> KafkaSettings:
        named = cluster.settings(user).model_copy(update=fields)
        if not fields:
            return named
        return named.model_copy(update={"kafka_sasl_username": f"acme-{user}"})

    consumer = Consumer(
        settings("registry"),
        service="registry",
        topics={"run.failed.v1": handle},
        producer=MemoryProducer(),
    )
    stop = threading.Event()
    reader = threading.Thread(target=consumer.run, args=(stop,), daemon=True)
    reader.start()
    cleanup.callback(reader.join, 60)
    cleanup.callback(stop.set)
    producer = KafkaProducer.from_settings(settings("training"), "training")
    cleanup.callback(producer.close)
    return producer


def _kill_for(cluster: Cluster, seconds: float, killed: threading.Event) -> None:
    """Kill the broker, set `killed`, and return as soon as the broker listens again."""
    (broker,) = cluster.kafka.brokers
    broker.server.kill()
    killed.set()
    time.sleep(seconds)
    broker.server.start()
    wait_for_port(port_of(broker.internal), 60)


def _send(producer: KafkaProducer, key: str) -> None:
    """Send like an outbox: repeat until the broker acknowledges."""
    for _ in range(60):
        try:
            producer.send("run.failed.v1", key, models_pb2.RunFailed(run_id=key), f"evt_{key}")
            return
        except Unavailable:
            time.sleep(0.5)
    raise AssertionError(f"{key} could not be sent")


class Tokens(BaseHTTPRequestHandler):
    """An endpoint that grants unsigned tokens, which Kafka accepts for tests."""

    asked = 0

    def do_POST(self) -> None:
        Tokens.asked += 1
        form = self.rfile.read(int(self.headers["Content-Length"])).decode()
        assert "grant_type=client_credentials" in form
        now = int(time.time())
        claims = {"sub": "tailor-training", "iat": now, "exp": now + 600}
        token = f"{_part({'alg': 'none'})}.{_part(claims)}."
        body = json.dumps({"access_token": token, "expires_in": 600, "token_type": "Bearer"}).encode()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Nothing."""


def _part(document: dict[str, Any]) -> str:
    from base64 import urlsafe_b64encode

    return urlsafe_b64encode(json.dumps(document).encode()).rstrip(b"=").decode()


def test_services_sign_in_with_certificates_and_with_tokens(
    programs: Programs, tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = tmp_path_factory.mktemp("listeners")
    secrets, files = make(directory), make_certificates(directory / "tls", ["tailor-training", "stranger"])
    mutual, oauth = free_ports(2)
    with run_kafka(
        programs,
        directory / "kafka",
        read_env(secrets / "kafka.env"),
        more_listeners={"MUTUAL": (mutual, "SSL"), "OAUTH": (oauth, "SASL_PLAINTEXT")},
        extra={
            "KAFKA_LISTENER_NAME_MUTUAL_SSL_CLIENT_AUTH": "required",
            "KAFKA_SSL_KEYSTORE_TYPE": "PEM",
            "KAFKA_SSL_TRUSTSTORE_TYPE": "PEM",
            "KAFKA_SSL_KEYSTORE_LOCATION": str(files.broker),
            "KAFKA_SSL_TRUSTSTORE_LOCATION": str(files.ca),
            "KAFKA_LISTENER_NAME_OAUTH_SASL_ENABLED_MECHANISMS": "OAUTHBEARER",
            "KAFKA_LISTENER_NAME_OAUTH_OAUTHBEARER_SASL_JAAS_CONFIG": f"{JAAS}.oauthbearer.OAuthBearerLoginModule required;",
        },
    ) as running:
        cluster = Cluster(running, secrets)
        one = {"TAILOR_KAFKA_REPLICATION_FACTOR": "1", "TAILOR_KAFKA_MIN_INSYNC_REPLICAS": "1"}
        for changes in ({}, {"TAILOR_KAFKA_PRINCIPAL": "User:CN=tailor-{name}", "TAILOR_KAFKA_ACCESS": "rules"}):
            outcome = cluster.init_topics(**one, **changes)
            assert outcome.returncode == 0, outcome.stderr
        certificate = KafkaSettings(
            kafka_bootstrap_servers=f"localhost:{mutual}",
            kafka_security_protocol="SSL",
            kafka_ca_file=files.ca,
            kafka_certificate_file=files.certificate("tailor-training"),
            kafka_key_file=files.key("tailor-training"),
        )
        endpoint = ThreadingHTTPServer(("127.0.0.1", 0), Tokens)
        threading.Thread(target=endpoint.serve_forever, daemon=True).start()
        token = KafkaSettings(
            kafka_bootstrap_servers=f"127.0.0.1:{oauth}",
            kafka_security_protocol="SASL_PLAINTEXT",
            kafka_sasl_mechanism="OAUTHBEARER",
            kafka_oauth_token_url=f"http://127.0.0.1:{endpoint.server_port}/token",
            kafka_oauth_client_id="training",
        )
        stranger = certificate.model_copy(
            update={"kafka_certificate_file": files.certificate("stranger"), "kafka_key_file": files.key("stranger")}
        )
        for settings in (certificate, token):
            _may_write(settings, "run.failed.v1")
            with pytest.raises(KafkaError):
                _may_write(settings, "specialist.serving.v1")
        with pytest.raises(KafkaError):
            _may_write(stranger, "run.failed.v1")
        endpoint.shutdown()
        assert Tokens.asked <= 4, "a token is kept until it has to be renewed"


def _may_write(settings: KafkaSettings, topic: str) -> None:
    producer = kafka.KafkaProducer(**settings.kafka_arguments() | {"max_block_ms": 5000, "bootstrap_timeout_ms": 5000})
    try:
        producer.send(topic, key=b"key", value=b"value").get(10)
    finally:
        producer.close(timeout=1)
