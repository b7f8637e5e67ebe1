"""A stricter policy is applied and replayed over what passed, with the services as processes; ingestion is killed meanwhile."""

import json
import os
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kafka
import pytest
from minio import Minio
from typer.testing import CliRunner

from tailor.cli.main import app
from tailor.local import secrets, stack
from tailor.local.environment import Plan, service_environment
from tailor.local.layout import STORES, Layout
from tests.waiting import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.slow]

SERVICES = ("ingestion", "anonymization", "synthetic", "registry")
NOT_STARTED = ["evaluation", "inference", "training"]
DOCUMENTS = 12
STRICT = 'extends = "default"\n[types]\nCONTRACT = "mask"\n[codes]\nCONTRACT = [\'\\bK-\\d{4}\\b\']\n'
SECONDS = 240


class House:
    """The stack, its command line and its corpus."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "settings.toml").write_text(
            "[ingestion]\nkeep_text_days = 5\nreplay_documents_per_minute = 120\n", encoding="utf-8"
        )
        self.stack = stack.up(root, only=(*STORES, *SERVICES))
        snapshot = self.stack.wait_ready(SECONDS)
        plan = Plan(Layout(root), snapshot.ports, secrets.ensure(Layout(root)))
        self.store = service_environment("anonymization", plan, {})
        self.broker = snapshot.ports.address("broker")

    def run(self, *arguments: str, key: str = "") -> Any:
        environment = {"TAILOR_STATE_DIR": str(self.root)} | ({"TAILOR_API_KEY": key} if key else {})
        result = CliRunner().invoke(app, ["--json", *arguments], env=environment)
        assert result.exit_code == 0, result.stderr
        return json.loads(result.stdout)

    def publish(self, count: int) -> None:
        producer: Any = kafka.KafkaProducer(bootstrap_servers=self.broker)
        for number in range(count):
            text = f"# Memo {number}\n\nNgozi Okafor signed contract K-{7000 + number} for the plant in March."
            headers = [("document-id", f"memo-{number}".encode()), ("file-name", b"memo.md")]
            producer.send("document.submitted.v1", key=b"memo", value=text.encode(), headers=headers)
        producer.flush()
        producer.close()

    def objects(self, bucket: str) -> dict[str, bytes]:
        client = Minio(
            self.store["TAILOR_S3_ENDPOINT"],
            self.store["TAILOR_S3_ACCESS_KEY"],
            self.store["TAILOR_S3_SECRET_KEY"],
            secure=False,
            region="us-east-1",
        )
        names = [item.object_name for item in client.list_objects(bucket, recursive=True) if item.object_name]
        return {name: client.get_object(bucket, name).read() for name in names}

    def corpus(self) -> str:
        # Those who wait ask again and again.
        time.sleep(0.5)
        return b"\n".join(self.objects("corpus").values()).decode()

    def kill(self, service: str) -> None:
        """Kill a service and wait until another process of it is ready."""
        killed = self.stack.snapshot().components[service].process
        assert killed is not None
        os.kill(killed.pid, signal.SIGKILL)

        def is_back() -> bool:
            component = self.stack.snapshot().components[service]
            process = component.process
            return component.state == "ready" and process is not None and process.pid != killed.pid

        wait_until(is_back, SECONDS, f"{service} after kill -9")


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    with tempfile.TemporaryDirectory(prefix="tailor-replay-", ignore_cleanup_errors=True) as directory:
        root = Path(directory).resolve()
        try:
            yield House(root)
        finally:
            stack.down(root)


def test_a_stricter_policy_reaches_what_passed_though_ingestion_is_killed(house: House, tmp_path: Path) -> None:
    house.publish(DOCUMENTS)
    wait_until(lambda: house.corpus().count("K-70") == DOCUMENTS, SECONDS, "the documents to pass")
    policy = tmp_path / "strict.toml"
    policy.write_text(STRICT, encoding="utf-8")
    applied = house.run("policy", "apply", str(policy), "--replay")
    assert applied["changed"] and applied["outdated_documents"] == DOCUMENTS
    house.kill("ingestion")

    def done() -> bool:
        (replay,) = house.run("policy", "replays")["replays"]
        return bool(replay["state"] == "REPLAY_STATE_DONE" and replay["outcomes"] == {"KEPT": DOCUMENTS})

    wait_until(done, SECONDS, "the replay to end")
    wait_until(lambda: "K-70" not in house.corpus(), SECONDS, "the old texts to be deleted")
    assert house.corpus().count("[CONTRACT]") == DOCUMENTS and "Okafor" not in house.corpus()

    def answered() -> bool:
        (erasure,) = house.run("erasures")["erasures"]
        assert erasure["reason"] == "policy-replay"
        return len(erasure["document_ids"]) == DOCUMENTS and sorted(erasure["waiting_for"]) == NOT_STARTED

    wait_until(answered, SECONDS, "every service that runs to answer")
    documents = house.run("documents", "--limit", "100")["documents"]
    assert Counter(document["anonymized"]["version"]["sequence"] for document in documents) == {2: DOCUMENTS}
    assert all(b"Okafor" not in data for data in house.objects("quarantine").values())


def test_what_is_held_about_a_person_is_exported(house: House, tmp_path: Path) -> None:
    key = house.run("keys", "create", "dpo", "--role", "data-protection")["secret"]
    path = tmp_path / "held.json"
    house.run("subject", "export", "Ngozi Okafor", "--out", str(path), key=key)
    held = json.loads(path.read_text(encoding="utf-8"))
    assert len(held["documents"]) == DOCUMENTS and held["adapters"] == []
    assert held["documents"][0]["findings"]["CONTRACT"] == 1
