"""Kafka Connect's file source, from Apache Kafka's own jars, publishes documents with the rights of a publisher."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import kafka
import pytest

from services.ingestion.schema import SUBMITTED
from services.ingestion.wire import to_submission
from tailor.events.envelope import Event
from tests.conftest import Stores
from tests.real.fetch import KAFKA, fetch, folder
from tests.real.kinds import StoreKind
from tests.waiting import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.slow]

EXAMPLES = Path(__file__).parents[2] / "deploy" / "kafka" / "connect"
MAIN = "org.apache.kafka.connect.cli.ConnectStandalone"
FETCH_SECONDS = 300
START_SECONDS = 120
DOCUMENTS = [
    {"document_id": f"connect-{number}", "text": f"Memo {number}.", "labels": {"source": "crm"}} for number in range(3)
]


@pytest.fixture(scope="module")
def jars(store_kind: StoreKind) -> list[Path]:
    """The folders of jars that a worker needs. Skips, and says why, if they are not at hand."""
    if store_kind.name == "embedded":
        pytest.skip("Kafka Connect runs on Apache Kafka only; `make test-real` runs this")
    connector = folder() / f"connect-file-{KAFKA}"
    if not connector.is_dir():
        if shutil.which("mvn") is None:
            pytest.skip("Maven is missing, which fetches the file connector: apt-get install maven")
        copy = ["mvn", "-q", "-B", "dependency:copy", f"-Dartifact=org.apache.kafka:connect-file:{KAFKA}"]
        subprocess.run([*copy, f"-DoutputDirectory={connector}"], check=True, timeout=FETCH_SECONDS, cwd=folder())
    return [fetch(folder()).kafka_libs, connector]


def _free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


@contextmanager
def _worker(
    stores: Stores, jars: list[Path], directory: Path, source: Path, examples: Path = EXAMPLES
) -> Iterator[Path]:
    """A worker that publishes a file; yields its log."""
    publisher, log = stores.publisher, directory / "connect.log"
    assert publisher.kafka_sasl_password is not None
    environment = os.environ | {
        "KAFKA_BOOTSTRAP_SERVERS": publisher.kafka_bootstrap_servers,
        "KAFKA_SECURITY_PROTOCOL": publisher.kafka_security_protocol,
        "KAFKA_JAAS": "org.apache.kafka.common.security.scram.ScramLoginModule required "
        f'username="{publisher.kafka_sasl_username}" password="{publisher.kafka_sasl_password.get_secret_value()}";',
        "CONNECT_OFFSETS": str(directory / "offsets"),
        "CONNECT_PORT": str(_free_port()),
        "DOCUMENTS_FILE": str(source),
    }
    classes = os.pathsep.join(f"{path}/*" for path in jars)
    command = ["java", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", classes, MAIN]
    files = [str(examples / name) for name in ("worker.properties", "file-source.properties")]
    with log.open("wb") as output:
        process = subprocess.Popen([*command, *files], env=environment, stdout=output, stderr=output)
        try:
            yield log
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)


def _published(stores: Stores) -> list[str]:
    """The ids of the documents that arrived, each read as ingestion reads it."""
    settings = stores.kafka_admin
    client = kafka.KafkaConsumer(**settings.kafka_arguments())
    try:
        partitions = [kafka.TopicPartition(SUBMITTED, number) for number in client.partitions_for_topic(SUBMITTED)]
        client.assign(partitions)
        client.seek_to_beginning(*partitions)
        records = [record for batch in client.poll(timeout_ms=2000).values() for record in batch]
    finally:
        client.close()
    events = [Event(SUBMITTED, "", record.value) for record in records if b"connect-" in (record.value or b"")]
    return sorted(to_submission(event).external_id for event in events)


def test_each_line_of_a_file_becomes_a_document(stores: Stores, jars: list[Path], tmp_path: Path) -> None:
    source = tmp_path / "documents.jsonl"
    source.write_text("".join(f"{json.dumps(document)}\n" for document in DOCUMENTS))
    expected = [document["document_id"] for document in DOCUMENTS]
    with _worker(stores, jars, tmp_path, source):
        wait_until(lambda: _published(stores) == expected, START_SECONDS)


def test_a_misspelt_topic_is_refused_and_named(stores: Stores, jars: list[Path], tmp_path: Path) -> None:
    examples = tmp_path / "examples"
    shutil.copytree(EXAMPLES, examples)
    connector = examples / "file-source.properties"
    connector.write_text(re.sub(r"(?m)^topic=.*", "topic=document.submited.v1", connector.read_text()))
    source = tmp_path / "documents.jsonl"
    source.write_text(f"{json.dumps(DOCUMENTS[0])}\n")
    with _worker(stores, jars, tmp_path, source, examples) as log:
        wait_until(lambda: "document.submited.v1" in log.read_text(errors="replace"), START_SECONDS)
        wait_until(lambda: "AuthorizationException" in log.read_text(errors="replace"), START_SECONDS)
