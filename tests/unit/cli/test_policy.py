"""`tailor policy`, `replay` and `subject`, and strings that are replaced too often."""

import json
import stat
from pathlib import Path

import pytest

from tailor.api.anonymization.v1 import replaced_pb2
from tailor.api.events.v1 import models_pb2
from tailor.cli.datasets import describe_figures, over_redaction_warning
from tailor.errors import FailedPrecondition, Reason
from tests.fakes.policies import DOCUMENTS
from tests.fakes.replaced import PLACE
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


MEMO = "# Note\n\nSarah Jenkins [called].\nNobody else.\n"


@pytest.fixture
def memo(tmp_path: Path) -> Path:
    path = tmp_path / "memo.md"
    path.write_text(MEMO)
    return path


def test_shows_a_document_before_and_after_with_its_findings(tailor: Tailor, memo: Path) -> None:
    shown = tailor("policy", "preview", str(memo), "--diff")

    assert shown.code == 0
    lines = [line.rstrip() for line in shown.out.splitlines()]
    assert "-Sarah Jenkins [called]." in lines and "+Helen Ward [called]." in lines
    assert [line.split() for line in lines[-3:]] == [
        ["findings", "under", "policy", "abababababab"],
        ["type", "found", "action"],
        ["PERSON", "1", "surrogate"],
    ]


def test_writes_only_the_text_without_diff(tailor: Tailor, memo: Path) -> None:
    assert tailor("policy", "preview", str(memo)).out.rstrip() == MEMO.replace("Sarah Jenkins", "Helen Ward").rstrip()


def test_sends_policy_and_labels_and_writes_json(
    tailor: Tailor, memo: Path, tmp_path: Path, services: Services
) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text('[types]\nPERSON = "mask"\n')

    shown = tailor(
        "policy",
        "preview",
        str(memo),
        "--policy",
        str(policy),
        "--diff",
        "--department",
        "people",
        "--source",
        "wiki",
        "--output=json",
    )

    assert shown.document["before"] == MEMO and "Helen Ward" in shown.document["after"]
    assert shown.document["findings"] == {"PERSON": 1} and shown.document["policy_digest"] == "ab" * 32
    assert shown.document["changes"][0]["action"] == "ACTION_SURROGATE"
    request = services.anonymization.requests[0]
    assert request.policy == policy.read_text()
    assert (request.labels.source, request.labels.department, request.labels.confidentiality) == ("wiki", "people", "")


def test_reports_each_invalid_field_of_a_policy(tailor: Tailor, memo: Path, tmp_path: Path) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text('[types]\nPERSON = "hide"\n')

    refused = tailor("policy", "preview", str(memo), "--policy", str(policy))

    assert refused.code == 1
    assert refused.err.splitlines() == [
        "error: INVALID_POLICY: The policy is invalid.",
        "  types.PERSON: must be 'surrogate', 'mask', 'generalise' or 'keep'",
    ]


@pytest.mark.parametrize(("name", "data"), [("memo.docx", b"PK"), ("memo.md", b"\xff\xfe"), ("none.md", None)])
def test_refuses_files_that_are_not_text(
    tailor: Tailor, tmp_path: Path, services: Services, name: str, data: bytes | None
) -> None:
    if data is not None:
        (tmp_path / name).write_bytes(data)

    refused = tailor("policy", "preview", str(tmp_path / name))

    assert refused.code == 1 and refused.err.startswith(("error: NOT_TEXT", "error: INVALID_FILE"))
    assert services.anonymization.requests == []


def test_reveals_a_value_for_a_purpose(tailor: Tailor, services: Services) -> None:
    shown = tailor("subject", "reidentify", "Helen Ward", "--type", "PERSON", "--purpose", "court order 12")

    assert shown.out.strip() == "Sarah Jenkins"
    request = services.anonymization.requests[0]
    assert (request.entity_type, request.surrogate, request.purpose) == ("PERSON", "Helen Ward", "court order 12")


def test_a_purpose_is_required(tailor: Tailor, services: Services) -> None:
    assert tailor("subject", "reidentify", "Helen Ward", "--type", "PERSON").code == 2
    assert services.anonymization.requests == []


def test_lists_surrogates_with_counts_and_reveals_nothing(tailor: Tailor, services: Services) -> None:
    shown = tailor("review", "replaced")
    assert shown.code == 0 and "winters" in shown.out and "SQL" not in shown.out and not services.replaced.seen
    (first, second) = tailor("review", "replaced", "--output=json").document["strings"]
    assert (first["times"], first["documents"], first["departments"], second["sources"]) == (60, 12, 5, 2)


def test_data_protection_may_list_the_strings_themselves(tailor: Tailor, services: Services) -> None:
    assert "SQL" in tailor("review", "replaced", "--strings").out
    assert all(request.without_places for request in services.replaced.seen) and len(services.replaced.seen) == 2


def test_shows_places_with_the_string_in_the_place_of_its_surrogate(tailor: Tailor) -> None:
    shown = tailor("review", "replaced", "person:winters").out
    assert PLACE.replace("Winters", "SQL") in shown and "doc_1 risk" in shown
    assert "tailor review allow 'PERSON:winters'" in shown
    assert "UNKNOWN_REPLACED" in tailor("review", "replaced", "PERSON:nobody").err
    assert tailor("review", "replaced", "winters").code == 1


def test_allows_what_was_seen_and_replays_it(tailor: Tailor, services: Services) -> None:
    assert "PLACES_NOT_SEEN" in tailor("review", "allow", "PERSON:winters").err
    tailor("review", "replaced", "PERSON:winters")
    allowed = tailor("review", "allow", "PERSON:winters").out
    assert "generation 3" in allowed and "The replay runs" in allowed
    assert services.replaced.decisions[0].decision == replaced_pb2.REPLACED_DECISION_ALLOWED
    assert services.replays.started[0].barrier_digest == "b" * 64
    assert "tailor replay start" in tailor("review", "allow", "PERSON:winters", "--no-replay").out
    assert len(services.replays.started) == 1


def test_a_replay_that_runs_already_does_not_undo_what_was_allowed(tailor: Tailor, services: Services) -> None:
    services.replays.refusal = FailedPrecondition(Reason.REPLAY_RUNNING, "Another replay runs.")
    tailor("review", "replaced", "PERSON:winters")
    allowed = tailor("review", "allow", "PERSON:winters")
    assert allowed.code == 0 and "when it has ended" in allowed.out


def test_keeps_what_is_personal(tailor: Tailor, services: Services) -> None:
    tailor("review", "replaced", "USERNAME:musiav.ark")
    assert tailor("review", "keep", "USERNAME:musiav.ark").code == 0
    assert services.replaced.decisions[0].decision == replaced_pb2.REPLACED_DECISION_KEPT


def test_the_audit_shows_what_is_replaced_most_by_its_surrogates(tailor: Tailor) -> None:
    shown = " ".join(tailor("audit").out.split())
    assert "in 5 documents or more of all 40" in shown and "PERSON:winters" in shown and "SQL" not in shown
    assert tailor("audit", "--output=json").document["replaced"]["strings"][1]["times"] == 84


def test_a_dataset_over_the_limit_warns_and_another_does_not() -> None:
    figures = models_pb2.DatasetFigures(coverage=0.9, over_redaction=1.84, max_over_redaction=1.0)
    assert "over-redaction 1.84 (limit 1)" in describe_figures(models_pb2.DatasetBuilt(figures=figures))
    assert "1.84 replacements per 1,000 words" in over_redaction_warning(figures)
    figures.over_redaction = 0.2
    assert "over-redaction 0.20." in describe_figures(models_pb2.DatasetBuilt(figures=figures))
    assert not over_redaction_warning(figures)
    unknown = models_pb2.DatasetFigures(coverage=0.9)
    assert "over-redaction unknown" in describe_figures(models_pb2.DatasetBuilt(figures=unknown))


def test_build_warns_about_a_dataset_over_the_limit(tailor: Tailor, services: Services) -> None:
    services.synthetic.figures = models_pb2.DatasetFigures(over_redaction=1.84, max_over_redaction=1.0)
    assert "tailor review replaced" in tailor("build", "engagement-reports").err
