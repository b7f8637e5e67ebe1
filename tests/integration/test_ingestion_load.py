"""Two replicas of ingestion as processes: they share many documents, each ingested once, in bounded memory."""

import os
import re
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kafka
import pytest

from tailor.api.events.v1 import documents_pb2
from tailor.events.envelope import decode
from tailor.events.table import tail
from tailor.local.layout import ROOT
from tailor.settings import KafkaSettings
from tests.conftest import Stores
from tests.waiting import PATIENCE, wait_until

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.release]

WARM, DOCUMENTS = 200, 1_500
SUBMITTED, INGESTED = "document.submitted.v1", "document.ingested.v1"
# Allows for garbage collection and the events that the producer remembers. A buffered document would take at least 2 KiB.
GROWTH_BYTES = 24 * 2**20
REDELIVERED = 10
TEXT = "The operating rhythm of unit {number} continues; its week has {number} steps. " * 24
HANDLED = re.compile(rf'tailor_events_total{{[^}}]*outcome="handled"[^}}]*topic="{re.escape(SUBMITTED)}"[^}}]*}} (\S+)')


class Replica:
    """One process of ingestion."""

    def __init__(self, stores: Stores, ports_of: str, log: Path) -> None:
        self.status_port = stores.plan.ports[f"{ports_of}-status"]
        environment = stores.environment("ingestion") | {
            "TAILOR_RPC_PORT": str(stores.plan.ports[f"{ports_of}-rpc"]),
            "TAILOR_STATUS_PORT": str(self.status_port),
            "TAILOR_KAFKA_GROUP_INSTANCE_ID": f"ingestion-load-{ports_of}",
        }
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "services.ingestion"], cwd=ROOT, env=environment, stdout=output, stderr=output
            )

    def is_ready(self) -> bool:
        assert self.process.poll() is None
        try:
            self._read("readyz")
        except OSError:
            return False
        return True

    def handled(self) -> int:
        match = HANDLED.search(self._read("metrics"))
        return int(float(match[1])) if match else 0

    def cpu_seconds(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def resident_bytes(self) -> int:
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()

    def _read(self, path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.status_port}/{path}", timeout=60) as answer:
            return str(answer.read().decode())


@pytest.fixture
def replicas(stores: Stores, tmp_path: Path) -> Iterator[list[Replica]]:
    # The second replica uses the ports of a service that this stack does not run.
    names = ("ingestion", "synthetic")
    started = [Replica(stores, name, tmp_path / f"{name}.log") for name in names]
    try:
        for replica in started:
            wait_until(replica.is_ready, 40)
        yield started
    finally:
        for replica in started:
            replica.stop()


class Ingested:
    """Collects published versions with the ids of their events. A repeated id is the same event."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._stop = threading.Event()
        self.read = 0
        self.versions: dict[tuple[str, int], set[str]] = {}
        self._thread = threading.Thread(target=self._read, args=(settings,), daemon=True)
        self._thread.start()

    def _read(self, settings: KafkaSettings) -> None:
        for event in tail(settings, [INGESTED], self._stop, from_beginning=True):
            message = decode(event, documents_pb2.DocumentIngested)
            if message.labels.source == "load":
                self.read += 1
                key = (message.document_id, message.version.sequence)
                self.versions.setdefault(key, set()).add(event.event_id)

    def wait_for(self, count: int, replicas: list[Replica], seconds: float) -> list[int]:
        """Wait for `count` versions. Returns the highest resident memory of each replica meanwhile, in bytes."""
        highest, deadline = [0 for _ in replicas], time.monotonic() + seconds * PATIENCE
        while len(self.versions) < count and time.monotonic() < deadline:
            highest = [max(known, replica.resident_bytes()) for known, replica in zip(highest, replicas, strict=True)]
            time.sleep(0.1)
        return highest

    def close(self) -> None:
        self._stop.set()
        self._thread.join(60)


def publish(settings: KafkaSettings, numbers: range) -> float:
    """Publish as fast as the broker accepts. Returns the seconds that it took."""
    started = time.monotonic()
    producer: Any = kafka.KafkaProducer(**settings.kafka_arguments())
    for number in numbers:
        headers = [("document-id", f"load-{number}".encode()), ("file-name", b"a.md"), ("label-source", b"load")]
        value = TEXT.format(number=number).encode()
        producer.send(SUBMITTED, key=f"load-{number}".encode(), value=value, headers=headers)
    producer.flush()
    producer.close()
    return time.monotonic() - started


def test_two_replicas_share_many_documents_each_comes_out_once_and_memory_stays_flat(
    stores: Stores, replicas: list[Replica]
) -> None:
    ingested = Ingested(stores.reader)
    publish(stores.publisher, range(WARM))
    ingested.wait_for(WARM, replicas, 30)
    before = [replica.resident_bytes() for replica in replicas]
    cpu_before = sum(replica.cpu_seconds() for replica in replicas)
    took = publish(stores.publisher, range(WARM, WARM + DOCUMENTS))
    started = time.monotonic()
    highest = ingested.wait_for(WARM + DOCUMENTS, replicas, 150)
    seconds = time.monotonic() - started
    cpu = sum(replica.cpu_seconds() for replica in replicas) - cpu_before
    time.sleep(1)
    ingested.close()
    handled = [replica.handled() for replica in replicas]
    growth = [most - least for most, least in zip(highest, before, strict=True)]
    print(
        f"{DOCUMENTS} documents, {ingested.read} events; published in {took:.1f} s and ingested in {seconds:.1f} s ({cpu:.1f} s of CPU); handled {handled}; "
        f"resident {[size >> 20 for size in before]} MiB before, {[size >> 20 for size in highest]} MiB at most"
    )
    total = WARM + DOCUMENTS
    assert len(ingested.versions) == len({document for document, _ in ingested.versions}) == total
    assert {len(ids) for ids in ingested.versions.values()} == {1}
    # When a replica joins the group, the event in progress is redelivered, which publishes the same outcome again.
    assert ingested.read <= total + REDELIVERED and total <= sum(handled) <= total + REDELIVERED
    assert min(handled) > total * 0.2
    assert max(growth) < GROWTH_BYTES
