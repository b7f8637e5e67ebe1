"""Documents with made-up secrets, and the list of the secrets."""

from pathlib import Path

from tailor.planted_secrets import read_secrets
from tests.unit.cli.conftest import Tailor


def test_every_secret_of_the_list_stands_in_its_document(tailor: Tailor, tmp_path: Path) -> None:
    folder = tmp_path / "decoys"
    written = tailor("document", "plant-secrets", str(folder), "--count", "3", "--output=json")

    planted = read_secrets((folder / "planted_secrets.jsonl").read_bytes())
    assert written.document == {
        "documents": str(folder / "documents"),
        "planted_secrets": str(folder / "planted_secrets.jsonl"),
        "count": 3,
    }
    texts = {path.stem: path.read_text(encoding="utf-8") for path in (folder / "documents").iterdir()}
    assert {secret.secret_id for secret in planted} == set(texts)
    assert all(f"{secret.before}{secret.value}." in texts[secret.secret_id] for secret in planted)
    assert len({secret.value for secret in planted}) == 3


def test_a_pattern_without_enough_chance_is_refused_before_anything_is_written(tailor: Tailor, tmp_path: Path) -> None:
    refused = tailor("document", "plant-secrets", str(tmp_path / "decoys"), "--pattern", "12-##")

    assert refused.code == 1
    assert "INVALID_PLANTED_SECRET" in refused.err
    assert not (tmp_path / "decoys").exists()


def test_an_earlier_list_is_not_overwritten(tailor: Tailor, tmp_path: Path) -> None:
    refused = tailor("document", "plant-secrets", str(tmp_path))

    assert refused.code == 1
    assert "already exists" in refused.err
