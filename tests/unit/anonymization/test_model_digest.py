"""The digest of an installed model."""

from pathlib import Path

import pytest

from services.anonymization.recognise.detectors.model_digest import check_folder, check_model
from tailor.errors import FailedPrecondition
from tailor.storage.folder_digest import digest_of


def test_every_name_and_content_counts_and_compiled_files_do_not(tmp_path: Path) -> None:
    (tmp_path / "ner").mkdir()
    (tmp_path / "ner" / "model").write_bytes(b"weights")
    before = digest_of(tmp_path)
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "a.pyc").write_bytes(b"x")
    assert digest_of(tmp_path) == before
    (tmp_path / "ner" / "model").write_bytes(b"weights2")
    assert digest_of(tmp_path) != before


def test_a_missing_model_is_named(tmp_path: Path) -> None:
    del tmp_path
    with pytest.raises(FailedPrecondition, match=r"english.*no_such_model"):
        check_model("english", "no_such_model", "")


def test_a_model_of_other_files_is_refused() -> None:
    check_model("any", "email", "")
    with pytest.raises(FailedPrecondition, match="not the one"):
        check_model("any", "email", "0" * 64)


def test_a_folder_of_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    check_folder("pii", tmp_path, digest_of(tmp_path))
    check_folder("pii", tmp_path, "")
    with pytest.raises(FailedPrecondition, match=r"pii.*not the one"):
        check_folder("pii", tmp_path, "0" * 64)
    with pytest.raises(FailedPrecondition, match="must be a folder"):
        check_folder("pii", tmp_path / "missing", "")
