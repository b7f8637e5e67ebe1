"""`tailor policy` and `tailor subject` against fake services."""

import json
import stat
from pathlib import Path

import pytest

from tests.fakes.policies import DOCUMENTS
from tests.unit.cli.conftest import Services, Tailor


@pytest.fixture
def own(tmp_path: Path) -> Path:
    path = tmp_path / "own.toml"
    path.write_text('extends = "default"\n[types]\nNRP = "mask"\n')
    return path


def test_checks_a_file_and_shows_what_it_decides(tailor: Tailor, services: Services, own: Path) -> None:
    shown = tailor("policy", "check", str(own))
    assert shown.code == 0 and services.policies.requests[0].policy == own.read_text()
    lines = [line.split() for line in shown.out.splitlines()]
    assert ["HEALTH", "mask", "every", "document", "without", "a", "rule"] in lines
    assert ["PERSON", "mask", "rules[0]:", "department", "legal"] in lines
    assert "files of names: clients.csv" in shown.out


def test_reports_a_wrong_policy_field_by_field(tailor: Tailor, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.toml"
    wrong.write_text('[types]\nPERSON = "hide"\n')
    shown = tailor("policy", "check", str(wrong))
    assert shown.code == 1 and "types.PERSON: must be 'surrogate'" in shown.err


def test_a_policy_that_comes_with_tailor_is_named(tailor: Tailor, services: Services) -> None:
    assert tailor("policy", "check", "hipaa-safe-harbor").code == 0
    assert services.policies.requests[0].policy == 'extends = "hipaa-safe-harbor"\n'
    assert tailor("policy", "check").code == 0 and services.policies.requests[1].policy == ""


def test_shows_where_two_policies_differ(tailor: Tailor, services: Services, own: Path, tmp_path: Path) -> None:
    text = tmp_path / "memo.md"
    text.write_text("A Polish engineer.\n")
    shown = tailor("policy", "diff", str(own), "default", "--text", str(text), "--department", "people")
    request = services.policies.requests[0]
    assert (request.before, request.labels.department) == ('extends = "default"\n', "people")
    lines = [line.rstrip() for line in shown.out.splitlines()]
    assert ["NRP", "department", "people", "keep", "mask", "3", "7"] in [line.split() for line in lines]
    assert "-A Polish engineer." in lines and "+A [NRP] engineer." in lines


def test_applies_a_policy_and_names_what_a_replay_would_reach(tailor: Tailor, services: Services, own: Path) -> None:
    shown = tailor("policy", "apply", str(own))
    assert "in force, generation 2" in shown.out and "40 documents passed under another policy" in shown.out
    assert not services.replays.started
    assert tailor("policy", "apply", str(own), "--replay").code == 0
    assert [(request.all_documents, request.barrier_digest) for request in services.replays.started] == [
        (False, "ba" * 32)
    ]
    assert "key_1" in tailor("policy", "list").out


def test_waits_for_a_replay_and_says_which_adapters_learned(tailor: Tailor, services: Services) -> None:
    shown = tailor("replay", "start", "--wait", "--all", "--output=json").document
    assert services.replays.started[0].all_documents and shown["outcomes"] == {"KEPT": 1, "NEEDS_OWNER": 1}
    assert services.replays.started[0].barrier_digest == "ba" * 32
    assert services.lineage.asked == [DOCUMENTS[:1], DOCUMENTS[1:]]
    assert [adapter["adapter_digest"][:2] for adapter in shown["adapters"]] == ["ad"] and shown["adapters"][0][
        "tainted"
    ]
    assert [adapter["adapter_digest"][:2] for adapter in shown["unchecked_adapters"]] == ["af"]


def test_lists_replays_and_documents_that_need_their_owner(tailor: Tailor, services: Services) -> None:
    assert "rpl_1" in tailor("replay", "list").out
    one = tailor("replay", "show", "rpl_1")
    assert "have their owners publish them again" in one.out and "tainted" in one.out
    assert tailor("replay", "show", "rpl_1", "--outcome", "needs_owner").out.split() == [DOCUMENTS[1]]
    assert tailor("replay", "cancel", "rpl_1").code == 0 and services.replays.cancelled == ["rpl_1"]


def test_writes_the_record_of_processing_activities(tailor: Tailor, tmp_path: Path) -> None:
    path = tmp_path / "record.md"
    assert tailor("policy", "record", "--out", str(path), "--controller", "Example Ltd, Leeds").code == 0
    text = path.read_text()
    for part in (
        "## (a) Controller",
        "## (f) Time limits",
        "Example Ltd, Leeds",
        "| HEALTH | mask |",
        "| quarantine |",
    ):
        assert part in text
    assert "| document.submitted.v1 |" in text and "bucket quarantine, documents/ | 7 days" in text
    assert "to be filled in by the controller" in text and "key_1" in text


def test_exports_what_is_held_about_a_person_to_a_private_file(
    tailor: Tailor, services: Services, tmp_path: Path
) -> None:
    path = tmp_path / "held.json"
    shown = tailor("subject", "export", "Sarah Jenkins", "--out", str(path))
    assert shown.code == 0 and stat.S_IMODE(path.stat().st_mode) == 0o600
    content = json.loads(path.read_text())
    assert [document["document_id"] for document in content["documents"]] == DOCUMENTS
    assert content["documents"][0]["findings"] == {"PERSON": 2} and content["datasets"] == ["da" * 32]
    assert [adapter["adapter_digest"][:2] for adapter in content["adapters"]] == ["ad", "ae", "af"]
    assert "Jenkins" not in shown.out + shown.err + path.read_text() and services.subjects.subjects == ["Sarah Jenkins"]


def test_an_export_overwrites_no_file_and_of_a_stranger_is_empty(
    tailor: Tailor, services: Services, tmp_path: Path
) -> None:
    path = tmp_path / "held.json"
    assert tailor("subject", "export", "Nobody Known", "--out", str(path)).code == 0
    assert json.loads(path.read_text())["documents"] == [] and not services.lineage.asked
    again = tailor("subject", "export", "Nobody Known", "--out", str(path))
    assert again.code == 1 and "exists" in again.err and len(services.subjects.subjects) == 1
