"""`tailor policy preview` and `tailor subject reidentify`."""

from pathlib import Path

import pytest

from tests.unit.cli.conftest import Services, Tailor

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
