"""A stricter policy is applied and replayed over what passed, with the services as processes; ingestion is killed meanwhile."""

import json
import os
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import kafka
import pytest
from minio import Minio
from minio.error import S3Error
from typer.testing import CliRunner

from services.anonymization.recognise.lists import LOOK_SECONDS
from tailor.cli.main import app
from tailor.local import secrets, stack
from tailor.local.environment import StackPlan, service_environment
from tailor.local.layout import STORES, Layout
from tests.waiting import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.release]

SERVICES = ("ingestion", "anonymization", "synthetic", "registry")
NOT_STARTED = ["evaluation", "inference", "training"]
DOCUMENTS = 12
SETTINGS = """
[ingestion]
keep_text_days = 5
replay_documents_per_minute = 120
[anonymization]
policy_file = "policy.toml"
lists_dir = "lists"
"""
FIRST = 'extends = "default"\n[deny]\nCLIENT = [{ file = "clients.txt" }]\n'
STRICT = FIRST + "[types]\nCONTRACT = 'mask'\n[codes]\nCONTRACT = ['\\bK-\\d{4}\\b']\n"
MEMO = "# Memo {0}\n\nNgozi Okafor signed contract K-70{0:02} in March, and the quiet lantern pays."
MANUAL = "# Manual {1} of {0}\n\nMr Whitfield of {0} has a valve {1} in the pump room."
SECONDS = 240


class House:
    """The stack, its command line and its corpus."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "settings.toml").write_text(SETTINGS, encoding="utf-8")
        (root / "policy.toml").write_text(FIRST, encoding="utf-8")
        (root / "lists").mkdir()
        self.clients = root / "lists" / "clients.txt"
        self.clients.write_text("quiet lantern\n", encoding="utf-8")
        self.stack = stack.up(root, only=(*STORES, *SERVICES))
        snapshot = self.stack.wait_ready(SECONDS)
        plan = StackPlan(Layout(root), snapshot.ports, secrets.ensure(Layout(root)))
        self.store = service_environment("anonymization", plan, {})
        self.broker = snapshot.ports.address("broker")

    def run(self, *arguments: str, key: str = "") -> Any:
        environment = {"TAILOR_STATE_DIR": str(self.root)} | ({"TAILOR_API_KEY": key} if key else {})
        result = CliRunner().invoke(app, ["--output=json", *arguments], env=environment)
        assert result.exit_code == 0, result.stderr
        return json.loads(result.stdout)

    def publish(self, texts: Mapping[str, str], department: str = "") -> None:
        producer: Any = kafka.KafkaProducer(bootstrap_servers=self.broker)
        for name, text in texts.items():
            headers = [("document-id", name.encode()), ("file-name", b"memo.md")]
            headers += [("label-department", department.encode())] if department else []
            producer.send("document.submitted.v1", key=name.encode(), value=text.encode(), headers=headers)
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
        found = {}
        for name in names:
            # Between the list and this, a service may have deleted it.
            with suppress(S3Error):
                found[name] = client.get_object(bucket, name).read()
        return found

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
    house.publish({f"memo-{number}": MEMO.format(number) for number in range(DOCUMENTS)})
    wait_until(lambda: house.corpus().count("K-70") == DOCUMENTS, SECONDS, "the documents to pass")
    assert house.run("policy", "list")["policies"][0]["installed_by"] == "settings"
    assert "quiet lantern" not in house.corpus()
    policy = tmp_path / "strict.toml"
    policy.write_text(STRICT, encoding="utf-8")
    applied = house.run("policy", "apply", str(policy), "--replay")
    assert applied["changed"] and applied["outdated_documents"] == DOCUMENTS
    house.kill("ingestion")

    def done() -> bool:
        (replay,) = house.run("replay", "list")["replays"]
        return bool(replay["state"] == "REPLAY_STATE_DONE" and replay["outcomes"] == {"KEPT": DOCUMENTS})

    wait_until(done, SECONDS, "the replay to end")
    wait_until(lambda: "K-70" not in house.corpus(), SECONDS, "the old texts to be deleted")
    assert house.corpus().count("[CONTRACT]") == DOCUMENTS and "Okafor" not in house.corpus()

    def answered() -> bool:
        (erasure,) = house.run("erasure", "list")["erasures"]
        assert erasure["reason"] == "policy-replay"
        return len(erasure["document_ids"]) == DOCUMENTS and sorted(erasure["waiting_for"]) == NOT_STARTED

    wait_until(answered, SECONDS, "every service that runs to answer")
    documents = house.run("document", "list", "--limit", "100")["documents"]
    assert Counter(document["anonymized"]["version"]["sequence"] for document in documents) == {2: DOCUMENTS}
    assert all(b"Okafor" not in data for data in house.objects("quarantine").values())


def test_what_is_held_about_a_person_is_exported(house: House, tmp_path: Path) -> None:
    key = Layout(house.root).protection_key_file.read_text(encoding="utf-8").strip()
    path = tmp_path / "held.json"
    house.run("subject", "export", "Ngozi Okafor", "--out", str(path), key=key)
    held = json.loads(path.read_text(encoding="utf-8"))
    assert len(held["documents"]) == DOCUMENTS and held["adapters"] == []
    assert held["documents"][0]["findings"]["CONTRACT"] == 1


def test_a_list_of_names_is_read_again_while_the_service_runs(house: House) -> None:
    house.publish({"note-1": "# Note\n\nThe amber walrus and the tin harbour wait for the first delivery."})
    wait_until(lambda: "amber walrus" in house.corpus(), SECONDS, "the first note to pass")
    house.clients.write_text("quiet lantern\ntin harbour\n", encoding="utf-8")
    time.sleep(LOOK_SECONDS)
    house.publish({"note-2": "# Note\n\nThe grey walrus and the tin harbour wait for the second delivery."})
    wait_until(lambda: "grey walrus" in house.corpus(), SECONDS, "the second note to pass")
    assert house.corpus().count("tin harbour") == 1
    assert house.run("replay", "start", "--all", "--wait")["outcomes"] == {"KEPT": DOCUMENTS + 2}
    wait_until(lambda: "tin harbour" not in house.corpus(), SECONDS, "the new name to leave what passed")


def test_the_record_and_the_differences_come_from_the_running_services(house: House, tmp_path: Path) -> None:
    path = tmp_path / "record.md"
    house.run("policy", "record", "--out", str(path))
    record = path.read_text(encoding="utf-8")
    assert "| CONTRACT | mask |" in record and "| HEALTH | mask |" in record and "| document.ingested.v1 |" in record
    assert house.run("policy", "check", "hipaa-safe-harbor")["list_files"] == []
    assert house.run("policy", "check")["list_files"] == ["clients.txt"]
    memo = tmp_path / "memo.md"
    memo.write_text("She was diagnosed with epilepsy. See contract K-7001.", encoding="utf-8")
    answer = house.run("policy", "diff", "hipaa-safe-harbor", "--text", str(memo))
    assert "[HEALTH]" in answer["text_before"]["text"] and "epilepsy" in answer["text_after"]["text"]
    contracts = [item for item in answer["differences"] if item["entity_type"] == "HEALTH"]
    assert contracts and contracts[0]["before"] == "mask" and contracts[0]["after"] == "keep"


def test_what_data_protection_allows_is_whole_again_in_what_passed(house: House) -> None:
    key = Layout(house.root).protection_key_file.read_text(encoding="utf-8").strip()
    for department in ("risk", "audit", "people"):
        texts = {f"{department}-{number}": MANUAL.format(department, number) for number in range(2)}
        house.publish(texts, department)
    wait_until(lambda: house.corpus().count(" has a valve") == 6, SECONDS, "the manuals to pass")
    strings = house.run("review", "replaced")["strings"]
    names = [f"{item['entity_type']}:{item['surrogate']}" for item in strings]
    values = {name: house.run("review", "replaced", name, key=key)["value"] for name in names}
    (allowed,) = [name for name, value in values.items() if value == "Whitfield"]
    answer = house.run("review", "allow", allowed, key=key)
    assert answer["outdated_documents"] >= 6 and answer["replay"]["documents"] >= 6

    def done() -> bool:
        return bool(house.run("replay", "list")["replays"][0]["state"] == "REPLAY_STATE_DONE")

    wait_until(done, SECONDS, "the replay to end")
    wait_until(lambda: house.corpus().count("Mr Whitfield of ") == 6, SECONDS, "the manuals to be whole again")
    assert allowed not in [
        f"{item['entity_type']}:{item['surrogate']}" for item in house.run("review", "replaced")["strings"]
    ]
    assert house.run("audit")["replaced"]["documents"] >= 6
