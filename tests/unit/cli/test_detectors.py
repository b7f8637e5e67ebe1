"""`tailor model add-detector`, with a hub in this process."""

import json
import threading
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from services.anonymization.recognise.detectors.definition import parse_detectors
from services.anonymization.recognise.detectors.model_digest import check_folder
from tailor.cli.detectors import find_labels, must_be_accepted
from tests.unit.cli.conftest import Tailor

COMMIT = "01234567" * 5
CONFIG = {
    "architectures": ["BertForTokenClassification"],
    "id2label": {"0": "O", "1": "B-PER", "2": "I-PER", "3": "B-ORG", "4": "B-COLOUR"},
}


@dataclass
class Hub:
    """Models by repository: what the hub tells, and its files."""

    card: dict[str, Any] = field(default_factory=lambda: {"license": "apache-2.0"})
    files: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def answer(self, path: str) -> bytes | None:
        self.asked.append(path)
        if path.startswith("/api/models/acme/pii/revision/"):
            siblings = [{"rfilename": name, "size": len(content)} for name, content in self.files.items()]
            return json.dumps({"sha": COMMIT, "cardData": self.card, "siblings": siblings}).encode()
        return self.files.get(path.removeprefix(f"/acme/pii/resolve/{COMMIT}/"))


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    shown = Hub()
    shown.files = {
        "config.json": json.dumps(CONFIG).encode(),
        "model.safetensors": b"weights",
        "pytorch_model.bin": b"pickle",
        "modeling.py": b"import os",
    }

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = shown.answer(self.path.partition("?")[0])
            self.send_response(200 if content is not None else 404)
            self.send_header("content-length", str(len(content or b"")))
            self.end_headers()
            self.wfile.write(content or b"")

        def log_message(self, *_: object) -> None:
            """Be silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_address[1]}")
    yield shown
    server.shutdown()


def test_a_model_becomes_a_detector_pinned_by_commit_and_digest(tailor: Tailor, hub: Hub, tmp_path: Path) -> None:
    result = tailor(
        "model", "add-detector", "hub:acme/pii@v1", "--folder", str(tmp_path), "--language", "en", "--output=json"
    )

    assert result.code == 0, result.err
    folder = Path(result.document["folder"])
    assert {path.name for path in folder.iterdir()} == {"config.json", "model.safetensors"}
    assert result.document["source"] == f"hub:acme/pii@{COMMIT}" and result.document["unused_labels"] == ["COLOUR"]
    assert "/api/models/acme/pii/revision/v1" in hub.asked
    rules = {"name": "rules", "kind": "rules"}
    tables = tomllib.loads(result.document["table"])["detectors"]
    (_, detector) = parse_detectors({"detectors": [rules, *tables]})
    assert detector.labels == {"PER": "PERSON", "ORG": "CLIENT"} and detector.languages == ("en",)
    check_folder("pii", Path(detector.model), detector.sha256)
    assert "licence: apache-2.0" in (tmp_path / f"{folder.name}.toml").read_text()


def test_a_repeated_call_downloads_nothing_again(tailor: Tailor, hub: Hub, tmp_path: Path) -> None:
    command = ("model", "add-detector", "hub:acme/pii", "--folder", str(tmp_path), "--output=json")
    first = tailor(*command)
    hub.asked.clear()
    assert tailor(*command).document == first.document
    assert not any("/resolve/" in path for path in hub.asked)


@pytest.mark.parametrize("licence", ["cc-by-nc-4.0", "unknown"])
def test_a_licence_that_may_exclude_companies_must_be_accepted_by_name(
    tailor: Tailor, hub: Hub, tmp_path: Path, licence: str
) -> None:
    hub.card = {} if licence == "unknown" else {"license": licence}
    command = ("model", "add-detector", "hub:acme/pii", "--folder", str(tmp_path))
    refused = tailor(*command)
    assert refused.code == 1 and refused.err.startswith("error: LICENCE_NOT_ACCEPTED") and licence in refused.err
    assert tailor(*command, "--accept-licence", "apache-2.0").code == 1 and list(tmp_path.iterdir()) == []
    assert licence in tailor(*command, "--accept-licence", licence).out


def test_pickles_other_models_large_ones_and_wrong_names_are_refused(tailor: Tailor, hub: Hub, tmp_path: Path) -> None:
    def refusal(*options: str, source: str = "hub:acme/pii") -> str:
        return tailor("model", "add-detector", source, "--folder", str(tmp_path), *options).err

    assert "error: INVALID_SOURCE" in refusal(source="acme/pii")
    assert "error: UNKNOWN_MODEL" in refusal(source="hub:acme/other")
    assert "error: INVALID_DETECTORS" in refusal("--label", "ORG")
    hub.files["model.safetensors"] = b"x" * 2_000_000
    assert "error: MODEL_TOO_LARGE" in refusal("--max-gib", "0.001")
    del hub.files["model.safetensors"]
    assert "error: PICKLE_REFUSED" in refusal()


def test_a_model_that_finds_no_values_in_texts_is_refused(tailor: Tailor, hub: Hub, tmp_path: Path) -> None:
    hub.files["config.json"] = json.dumps({"architectures": ["LlamaForCausalLM"]}).encode()
    refused = tailor("model", "add-detector", "hub:acme/pii", "--folder", str(tmp_path))
    assert "error: INVALID_MODEL" in refused.err


def test_gliner_is_asked_for_our_types(tailor: Tailor, hub: Hub, tmp_path: Path) -> None:
    hub.files["gliner_config.json"] = b"{}"
    result = tailor(
        "model", "add-detector", "hub:acme/pii", "--folder", str(tmp_path), "--label", "job title=JOB", "--output=json"
    )
    assert result.document["labels"]["person"] == "PERSON" and result.document["labels"]["job title"] == "JOB"
    assert 'kind = "gliner"' in result.document["table"]


def test_labels_of_known_classifiers_have_types(tmp_path: Path) -> None:
    names = ["B-GIVENNAME", "I-SURNAME", "B-STREET_ADDRESS", "U-EMAIL", "B-TELEPHONENUM"]
    (tmp_path / "config.json").write_text(json.dumps({"id2label": dict(enumerate(names))}))
    labels, unused = find_labels(tmp_path, "transformers", ())
    assert set(labels.values()) == {"PERSON", "ADDRESS", "EMAIL_ADDRESS", "PHONE_NUMBER"} and unused == []


def test_commercial_licences_need_no_word() -> None:
    assert not any(map(must_be_accepted, ("apache-2.0", "mit", "cc-by-4.0", "gpl-3.0")))
    assert all(map(must_be_accepted, ("cc-by-nc-sa-4.0", "other", "unknown", "research-only")))
